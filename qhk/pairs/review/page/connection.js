// Requests to the server that are repeated until it answers; tells when it is lost and when it is back.

const TIMEOUT_MS = 20000;
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 2000;
const HEARTBEAT_MS = 4000;

export class Refused extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

export class Connection {
  // `changed(problem)` gets null while all is well, else one line.
  constructor(changed) {
    this.changed = changed;
    this.problem = null;
    setInterval(() => this.beat(), HEARTBEAT_MS);
  }

  async json(path, query = {}) {
    return (await this.until(() => request(address(path, query)))).json();
  }

  async blob(path, query) {
    return (await this.until(() => request(address(path, query)))).blob();
  }

  // The body must carry a key, so that the server does a repeated request only once.
  async post(path, body) {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    return (await this.until(() => request(path, options))).json();
  }

  async until(attempt) {
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 1.5, LONGEST_WAIT_MS)) {
      try {
        const response = await attempt();
        this.report(null);
        return response;
      } catch (error) {
        if (error instanceof Refused && error.status < 500) {
          this.report(null);
          throw error;
        }
        this.report(error instanceof Refused ? error.message : "No connection to the review server.");
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  async beat() {
    try {
      await request("/api/alive");
      if (this.problem?.startsWith("No connection")) this.report(null);
    } catch {
      this.report("No connection to the review server.");
    }
  }

  report(problem) {
    if (problem === this.problem) return;
    this.problem = problem;
    this.changed(problem);
  }
}

function address(path, query) {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
}

async function request(path, options = {}) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (response.ok) return response;
  const line = await response.json().then((body) => body.error, () => response.statusText);
  throw new Refused(response.status, line);
}
