import { matchPath, type PathVariables } from "./path-template.ts";
import type { Route } from "./route.ts";

/** What a request's method and path lead to. */
export type RouteMatch =
  | { readonly kind: "found"; readonly route: Route; readonly variables: PathVariables }
  /** The path exists with other methods, which are named. */
  | { readonly kind: "wrong_method"; readonly allow: readonly string[] }
  | { readonly kind: "not_found" };

/** Finds the route of a request. */
export interface Router {
  /**
   * @param httpMethod in capitals; `HEAD` finds what `GET` finds
   * @param path as it came, without the query
   */
  match(httpMethod: string, path: string): RouteMatch;
  /** The methods that a path takes, with `HEAD` and `OPTIONS`; none if there is no such path. */
  allowed(path: string): readonly string[];
}

/** Builds a router. The first route that matches wins, so order them as `routesOf` does. */
export function createRouter(routes: readonly Route[]): Router {
  function allowed(path: string): readonly string[] {
    const methods = new Set<string>();
    for (const route of routes) {
      if (methods.has(route.httpMethod) || matchPath(route.template, path) === undefined) continue;
      methods.add(route.httpMethod);
      if (route.httpMethod === "GET") methods.add("HEAD");
    }
    return methods.size === 0 ? [] : [...methods, "OPTIONS"];
  }
  return {
    allowed,
    match(httpMethod, path) {
      const sought = httpMethod === "HEAD" ? "GET" : httpMethod;
      for (const route of routes) {
        if (route.httpMethod !== sought) continue;
        const variables = matchPath(route.template, path);
        if (variables !== undefined) return { kind: "found", route, variables };
      }
      const allow = allowed(path);
      return allow.length === 0 ? { kind: "not_found" } : { kind: "wrong_method", allow };
    },
  };
}
