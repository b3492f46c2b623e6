import { expect, test } from "vitest";
import { createSharedQuestions } from "./shared-question.ts";

function world() {
  const asked: PromiseWithResolvers<number>[] = [];
  const question = (): Promise<number> => {
    const one = Promise.withResolvers<number>();
    asked.push(one);
    return one.promise;
  };
  return { asked, question, questions: createSharedQuestions<number>() };
}

test("who may have an answer that was asked for before shares the question under way", async () => {
  const { asked, question, questions } = world();
  const answers = [questions.ask("a", question), questions.ask("a", question), questions.ask("b", question)];
  expect(asked).toHaveLength(2);
  asked[0]?.resolve(1);
  asked[1]?.resolve(2);
  expect(await Promise.all(answers)).toEqual([1, 1, 2]);
  expect(questions.has("a")).toBe(false);
});

test("who may not gets the next one's, and a thousand of them ask once", async () => {
  const { asked, question, questions } = world();
  const first = questions.askFromNow("a", question);
  const later = Array.from({ length: 1_000 }, () => questions.askFromNow("a", question));
  expect(asked).toHaveLength(1);
  asked[0]?.resolve(1);
  expect(await first).toBe(1);
  expect(asked).toHaveLength(2);
  // One that comes now was not there when the second was asked.
  const last = questions.askFromNow("a", question);
  asked[1]?.resolve(2);
  expect(new Set(await Promise.all(later))).toEqual(new Set([2]));
  expect(asked).toHaveLength(3);
  asked[2]?.resolve(3);
  expect(await last).toBe(3);
  expect(questions.has("a")).toBe(false);
});

test("a question that fails does so for those who shared it; those who wait ask again", async () => {
  const { asked, question, questions } = world();
  const first = questions.askFromNow("a", question).catch(String);
  const second = questions.askFromNow("a", question);
  asked[0]?.reject(new Error("no answer"));
  expect(await first).toBe("Error: no answer");
  asked[1]?.resolve(2);
  expect(await second).toBe(2);
});
