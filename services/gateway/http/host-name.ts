/** Whether a text is a host as requests name it, without port: a name, an IPv4 address, or an IPv6 address in brackets. */
export function isHostName(text: string): boolean {
  return /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9._-]{0,252}))$/i.test(text);
}
