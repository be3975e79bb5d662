// The daemon's protocol in a browser: requests matched by id, events, and facts that survive a lost connection.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const PATIENCE_MS = 60_000;
const REMEMBERED = 500; // facts that are fetched at the start, so that a fresh page is not blind to what just happened
const SIGNED_OUT = 4401;

/** What the daemon refused, or what kept it from answering: a stable code, a sentence, fields for programs. */
export class Failure extends Error {
  constructor(code, message, details = null) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** Trade a single-use code of `atlasd open` for a session token. */
export async function signIn(code) {
  const answer = await fetch("/api/v1/session", {
    method: "POST",
    headers: {"Content-Type": "application/json"},
    body: JSON.stringify({code}),
  });
  return (await read(answer)).token;
}

async function read(answer) {
  const content = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return content;
  const error = content?.error ?? {code: `HTTP_${answer.status}`, message: answer.statusText};
  throw new Failure(error.code, error.message, error.details);
}

/**
 * Events of its own: `state` (detail: open, waiting or closed), `event` (detail: a frame of the daemon's), `frame`
 * (detail: {sent, frame}), `gap` (facts were missed for good: ask anew), `signedout`.
 */
export class Client extends EventTarget {
  #token;
  #socket = null;
  #pending = new Map();
  #unsent = [];
  #number = 0;
  #wait = FIRST_WAIT_MS;
  #epoch = "";
  #last = 0;
  #ahead = new Set();

  constructor(token) {
    super();
    this.#token = token;
  }

  connect() {
    const socket = new WebSocket(`ws://${location.host}/ws`, ["atlas.json", `atlas.auth.${this.#token}`]);
    let opened = false;
    this.#socket = socket;
    socket.addEventListener("open", () => {
      opened = true;
      this.#wait = FIRST_WAIT_MS;
      this.#tell("state", "open");
      this.#attach();
      for (const frame of this.#unsent.splice(0)) this.#send(frame);
    });
    socket.addEventListener("message", message => this.#received(JSON.parse(message.data)));
    socket.addEventListener("close", event => this.#closed(opened, event.code));
  }

  close() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** Have a method answered: its payload, or a Failure. */
  call(method, payload = {}) {
    const id = `console-${++this.#number}`;
    return new Promise((resolve, reject) => {
      const late = () => this.#settle(id, null, new Failure("TIMEOUT", `${method} was not answered within a minute`));
      this.#pending.set(id, {resolve, reject, timer: setTimeout(late, PATIENCE_MS)});
      const frame = {id, type: "request", method, payload, timestamp: Date.now()};
      if (this.#socket?.readyState === WebSocket.OPEN) this.#send(frame);
      else this.#unsent.push(frame);
    });
  }

  /** Read a route; what is too long for a frame goes by HTTP. */
  async get(path) {
    return read(await this.#fetch(path));
  }

  /** Fetch a file, whose route wants a token as all do. */
  async file(path) {
    const answer = await this.#fetch(path);
    return answer.ok ? answer.blob() : read(answer);
  }

  /** Cancel or delete what a route stands for. */
  async remove(path) {
    return read(await this.#fetch(path, "DELETE"));
  }

  async #fetch(path, method = "GET") {
    const answer = await fetch(path, {method, headers: {Authorization: `Bearer ${this.#token}`}}).catch(() => {
      throw new Failure("DAEMON_UNREACHABLE", "the daemon does not answer: is `atlasd serve` running?");
    });
    if (answer.status === 401) this.#signedOut();
    return answer;
  }

  #tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, {detail}));
  }

  #send(frame) {
    this.#tell("frame", {sent: true, frame});
    this.#socket.send(JSON.stringify(frame));
  }

  #received(frame) {
    if (frame.type === "event") {
      if (this.#isNew(frame)) this.#tell("event", frame);
      return;
    }
    this.#tell("frame", {sent: false, frame});
    const error = frame.error && new Failure(frame.error.code, frame.error.message, frame.error.details);
    this.#settle(frame.id, frame.payload, error);
  }

  #settle(id, payload, error) {
    const asked = this.#pending.get(id);
    if (!asked) return;
    this.#pending.delete(id);
    clearTimeout(asked.timer);
    if (error) asked.reject(error);
    else asked.resolve(payload);
  }

  /** Facts are numbered without a hole; one that is told live and replayed as well counts once. */
  #isNew({epoch, seq}) {
    if (seq === undefined || seq === null) return true;
    if (epoch !== this.#epoch) this.#begin(epoch, seq - 1);
    if (seq <= this.#last || this.#ahead.has(seq)) return false;
    this.#ahead.add(seq);
    while (this.#ahead.delete(this.#last + 1)) this.#last++;
    return true;
  }

  #begin(epoch, last) {
    this.#epoch = epoch;
    this.#last = last;
    this.#ahead.clear();
  }

  async #attach() {
    try {
      const {epoch, last} = await this.call("events:subscribe");
      if (!this.#epoch) this.#begin(epoch, Math.max(0, last - REMEMBERED));
      await this.call("events:resume", {epoch: this.#epoch, after: this.#last});
    } catch (error) {
      if (error.code !== "RESUME_GAP") return;
      this.#begin(error.details?.epoch ?? "", error.details?.last ?? 0);
      this.#tell("gap", error.details);
    }
  }

  async #closed(opened, code) {
    if (this.#socket === null) return;
    this.#socket = null;
    const lost = new Failure("DISCONNECTED", "the connection to the daemon was lost; it is tried again");
    for (const id of [...this.#pending.keys()]) {
      if (!this.#unsent.some(frame => frame.id === id)) this.#settle(id, null, lost);
    }
    if (code === SIGNED_OUT) return this.#signedOut();
    // A browser does not say why an upgrade was refused; a request does.
    if (!opened && (await this.#isRefused())) return this.#signedOut();
    this.#tell("state", "waiting");
    setTimeout(() => this.#socket === null && this.connect(), this.#wait * (0.75 + Math.random() / 2));
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  async #isRefused() {
    const answer = await fetch("/api/v1/feeds", {headers: {Authorization: `Bearer ${this.#token}`}}).catch(() => null);
    return answer?.status === 401;
  }

  #signedOut() {
    this.close();
    this.#tell("state", "closed");
    this.#tell("signedout");
  }
}
