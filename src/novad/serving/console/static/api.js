// Asking the service; the key goes with each request as a header and is kept for this tab alone.

const KEY = "novad-key";

/** Why the service said no. */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The JSON document at an address. */
export async function read(path, signal) {
  return (await ask(path, { signal })).json();
}

/** Send a JSON document and return the answer to it. */
export async function send(path, document) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(document),
  };
  return (await ask(path, options)).json();
}

/** An address for an image element of the PNG that the service has at `path`. */
export async function picture(path, signal) {
  return URL.createObjectURL(await (await ask(path, { signal })).blob());
}

/** An address for an image element of a PNG in base64. */
export function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}

/** Join the parts of a path; each is text that may hold anything. */
export function path(...parts) {
  return "/" + parts.map((part) => encodeURIComponent(part)).join("/");
}

async function ask(path, options) {
  let answer;
  try {
    const headers = { ...options.headers, "X-API-Key": key.get() ?? "" };
    answer = await fetch(path, { ...options, headers, credentials: "omit", referrerPolicy: "no-referrer" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "unreachable", "The service does not answer.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, told.error?.code ?? "unknown", told.error?.message ?? answer.statusText);
}
