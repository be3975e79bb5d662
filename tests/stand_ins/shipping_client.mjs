// The client that ships, from its contract: the dialect with `action`, pings, and three routes of its own. It speaks
// the WebSocket by itself, since a runtime's own sends neither headers nor pings.
//
// node shipping_client.mjs PORT KEY CONFIG_FILE; prints one line of JSON with all it has seen.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";

const [port, key, configFile] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const TIMEOUT_MS = 30_000;
const seen = { responses: {}, events: [], pongs: 0, before: [], unknown: [] };

class Socket {
  constructor(stream, onText, onPong) {
    this.stream = stream;
    this.buffer = Buffer.alloc(0);
    stream.on("data", (bytes) => {
      this.buffer = Buffer.concat([this.buffer, bytes]);
      for (let frame = this.take(); frame; frame = this.take()) {
        if (frame.opcode === 1) onText(frame.payload.toString("utf8"));
        else if (frame.opcode === 9) this.send(10, frame.payload);
        else if (frame.opcode === 10) onPong();
      }
    });
  }

  take() {
    if (this.buffer.length < 2) return null;
    let length = this.buffer[1] & 127;
    let at = 2;
    if (length === 126) {
      if (this.buffer.length < 4) return null;
      length = this.buffer.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (this.buffer.length < 10) return null;
      length = Number(this.buffer.readBigUInt64BE(2));
      at = 10;
    }
    if (this.buffer.length < at + length) return null;
    const frame = { opcode: this.buffer[0] & 15, payload: this.buffer.subarray(at, at + length) };
    this.buffer = this.buffer.subarray(at + length);
    return frame;
  }

  send(opcode, payload) {
    const mask = randomBytes(4);
    const body = Buffer.from(payload);
    for (let index = 0; index < body.length; index += 1) body[index] ^= mask[index % 4];
    let head;
    if (body.length < 126) head = Buffer.from([128 | opcode, 128 | body.length]);
    else {
      head = Buffer.alloc(body.length < 65_536 ? 4 : 10);
      head[0] = 128 | opcode;
      head[1] = 128 | (body.length < 65_536 ? 126 : 127);
      if (body.length < 65_536) head.writeUInt16BE(body.length, 2);
      else head.writeBigUInt64BE(BigInt(body.length), 2);
    }
    this.stream.write(Buffer.concat([head, mask, body]));
  }
}

function connect(onText, onPong) {
  const nonce = randomBytes(16).toString("base64");
  const upgrade = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": nonce };
  return new Promise((resolve, reject) => {
    const request = http.get({ host: "127.0.0.1", port, path: "/ws", headers: { ...headers, ...upgrade } });
    request.on("response", (response) => reject(new Error(`no upgrade: ${response.statusCode}`)));
    request.on("error", reject);
    request.on("upgrade", (response, stream, head) => {
      const accept = createHash("sha1").update(`${nonce}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      if (response.headers["sec-websocket-accept"] !== accept) reject(new Error("wrong accept"));
      if (head.length) stream.unshift(head);
      resolve(new Socket(stream, onText, onPong));
    });
  });
}

function fetched(path, options = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: "127.0.0.1", port, path, headers, ...options }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ status: response.statusCode, type: response.headers["content-type"], body: Buffer.concat(parts) }));
    });
    request.on("error", reject);
    request.end(options.body);
  });
}

const pending = new Map();
let ended;
const completion = new Promise((resolve) => (ended = resolve));
let wanted = null;
const listened = ["backtest:progress", "backtest:event", "backtest:complete", "backtest:error"];

function received(text) {
  const message = JSON.parse(text);
  if (pending.size === 0 && wanted === null) seen.before.push(message);
  if (message.type === "pong") return;
  if (message.type === "response") {
    const { resolve, reject } = pending.get(message.id);
    pending.delete(message.id);
    if (message.success) resolve(message.data);
    else reject(new Error(message.error));
    return;
  }
  if (!listened.includes(message.type)) seen.unknown.push(message.type);
  seen.events.push(message);
  if (message.type === "backtest:complete" || message.type === "backtest:error") ended(message.payload.id);
}

let count = 0;
function ask(socket, action, payload = {}) {
  count += 1;
  const id = `req_${Date.now()}_${count.toString(36)}`;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${action} timed out`)), TIMEOUT_MS);
    pending.set(id, {
      resolve: (data) => (clearTimeout(timer), resolve(data)),
      reject: (error) => (clearTimeout(timer), reject(error)),
    });
    socket.send(1, JSON.stringify({ id, action, payload }));
  });
}

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return error.message;
  }
}

const socket = await connect(received, () => (seen.pongs += 1));
socket.send(9, Buffer.from("alive"));
await new Promise((resolve) => setTimeout(resolve, 100));

const { config, load, prices, ranges } = JSON.parse(readFileSync(configFile, "utf8"));
const told = seen.responses;
told.status = await ask(socket, "status");
told.symbols = await ask(socket, "data:symbols");
told.load = await ask(socket, "data:load", load);
const { id } = await ask(socket, "backtest:run", { config, priority: "normal" });
wanted = id;
told.id = id;
told.completed = await completion;
told.progress = await ask(socket, "backtest:progress", { id });
const result = await ask(socket, "backtest:result", { id });
told.result = { keys: Object.keys(result), metrics: Object.keys(result.metrics), trades: result.trades.length, status: result.status };
told.list = await ask(socket, "backtest:list", {});
told.completedList = (await ask(socket, "backtest:list", { status: "completed" })).length;
told.simulation = await ask(socket, "montecarlo:run", { backtestId: id, runs: 50 });
told.optimization = await ask(socket, "strategy:optimize", {
  strategyId: config.strategyId,
  parameterRanges: ranges,
  optimizationTarget: "sharpe",
  maxIterations: 2,
});
told.cancelFailure = await failure(ask(socket, "backtest:cancel", { id }));
told.unknownFailure = await failure(ask(socket, "made:up"));
told.reports = {};
for (const format of ["json", "csv", "pdf"]) {
  const report = await fetched(`/api/backtest/${id}/report?format=${format}`);
  told.reports[format] = { status: report.status, type: report.type, bytes: report.body.length, begin: report.body.subarray(0, 5).toString("latin1") };
}
const found = await fetched(`/api/prices?${new URLSearchParams(prices)}`);
told.prices = { status: found.status, body: JSON.parse(found.body.toString()) };
const body = JSON.stringify({ signals: [] });
const uploaded = await fetched("/api/signals/technical", { method: "POST", body, headers: { ...headers, "Content-Type": "application/json" } });
told.signals = { status: uploaded.status, body: JSON.parse(uploaded.body.toString()) };
process.stdout.write(`${JSON.stringify(seen)}\n`);
socket.stream.end();
process.exit(0);
