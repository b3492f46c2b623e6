/** How many objects a page holds: what the request says, 50 if it says nothing, at most 200. */
export function pageSize(requested: number): number {
  return requested === 0 ? 50 : Math.min(requested, 200);
}
