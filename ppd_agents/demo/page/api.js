// Talks to the server; what it refuses becomes an error whose message can be shown as it is.

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer: is it still running?", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refused(told.error ?? `The server answered ${response.status}.`, response.status);
}

const asJson = (content, signal) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(content),
  signal,
});

export const get = async (path) => (await answer(path)).json();
export const post = async (path, content, signal) => (await answer(path, asJson(content, signal))).json();
export const postForBlob = async (path, content) => (await answer(path, asJson(content))).blob();

export async function send(path, file, method = "POST") {
  const url = `${path}?name=${encodeURIComponent(file.name ?? "image")}`;
  const headers = { "content-type": "application/octet-stream" };
  return (await answer(url, { method, headers, body: file })).json();
}

// Yields one object per line as the lines come.
export async function* lines(path, content, signal) {
  const response = await answer(path, asJson(content, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const line = JSON.parse(part);
      if (line.error) throw new Refused(line.error, 500);
      yield line;
    }
  }
}
