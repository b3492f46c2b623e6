import { sql } from "kysely";
import type { Migration } from "../../postgres/migration.ts";

/** Where groups are, and how an operator moves one. */
export const migration: Migration = {
  name: "0002-offsets",
  destructive: false,
  up: async (db) => {
    await sql`create function list_positions(only_group text)
      returns table ("group" text, topic text, partition int, next_offset bigint, end_offset bigint, lag bigint)
      language sql stable security definer set search_path = bus, pg_temp as $$
      select s."group", s.topic, s.partition, s.next_offset, q.next_offset,
             q.next_offset - greatest(s.next_offset, coalesce(
               (select min(e."offset") from event e where e.topic = s.topic and e.partition = s.partition), q.next_offset))
        from position s join partition q on q.topic = s.topic and q.partition = s.partition
        where only_group is null or s."group" = only_group
        order by s."group", s.topic, s.partition
    $$`.execute(db);

    // Refused while members run: one that has read events would acknowledge them in their old place. The lock is the
    // one under which members join. Where no event is that young the group goes past the newest.
    await sql`create function reset_positions(the_group text, the_topic text, place text, since timestamptz)
      returns text language plpgsql security definer set search_path = bus, pg_temp as $$
    begin
      perform pg_advisory_xact_lock(hashtextextended('bus ' || the_group || ' ' || the_topic, 0));
      if not exists (select from position s where s."group" = the_group and s.topic = the_topic) then
        return 'unknown';
      end if;
      if exists (select from member m
                  where m."group" = the_group and m.topic = the_topic and m.lease_until > clock_timestamp()) then
        return 'in use';
      end if;
      update position s set epoch = s.epoch + 1, member = null, lease_until = null, next_offset = coalesce(
          case place
            when 'earliest' then
              (select min(e."offset") from event e where e.topic = s.topic and e.partition = s.partition)
            when 'since' then
              (select min(e."offset") from event e
                where e.topic = s.topic and e.partition = s.partition and e.published_at >= since)
          end,
          q.next_offset)
        from partition q
        where q.topic = s.topic and q.partition = s.partition and s."group" = the_group and s.topic = the_topic;
      return 'moved';
    end $$`.execute(db);
  },
  down: async (db) => {
    await sql`drop function reset_positions, list_positions`.execute(db);
  },
};
