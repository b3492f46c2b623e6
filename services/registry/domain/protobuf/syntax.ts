/** What a file is written in; decides what may stand in it. */
export type Syntax = "proto2" | "proto3" | "editions";
