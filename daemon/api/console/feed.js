// What the daemon has told since the page was opened: the latest of each kind of progress, and the last events.

const MOST = 5_000;

/** `told` (detail: {name, id, time, fields, seq}) for every event; `kept` holds the last of them, the newest first. */
export class Events extends EventTarget {
  kept = [];
  progress = new Map();
  began = false;

  constructor(client) {
    super();
    client.addEventListener("event", ({detail}) => this.#take(detail));
  }

  #take(frame) {
    this.began = true;
    const told = {
      name: frame.method,
      id: frame.payload.id ?? "",
      time: frame.timestamp,
      fields: frame.payload,
      seq: frame.seq ?? null,
    };
    if (told.name.endsWith(":progress")) this.progress.set(told.id, told.fields);
    else this.progress.delete(told.id);
    this.kept.unshift(told);
    if (this.kept.length > MOST + MOST / 10) this.kept.length = MOST;
    this.dispatchEvent(new CustomEvent("told", {detail: told}));
  }

  /** Call back after events of a room, `backtest` say, at most every so many ms. id: only of this run. */
  follow(here, rooms, work, {id = null, pause = 400} = {}) {
    let timer = null;
    here.on(this, "told", ({detail}) => {
      if (!rooms.includes(detail.name.split(":")[0]) || (id !== null && detail.id !== id)) return;
      timer ??= setTimeout(() => {
        timer = null;
        work();
      }, pause);
    });
  }
}

/** Gather what comes in a burst: the work is done once, when it has been quiet for so long. */
export function settled(ms, work) {
  let timer = null;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}
