// @ts-check
// The arrival of tokens, drawn as a stream: time runs to the right, and the stream is as wide as the tokens come fast.

/** Shortest time that the width shows, in ms; a longer answer shrinks to fit. */
const SPAN_MS = 3_000;
/** An answer that was over sooner, from a journal mostly, gets the whole width for itself, but not for less than this. */
const BURST_MS = 1_000;
const LEAST_MS = 10;
/** The stream's width follows the rate over about this time, within these parts of the picture. */
const SMOOTH_MS = 70;
const SMOOTH_PARTS = [1 / 150, 1 / 60];
/** The stream rises, and ends, over this length, in px. */
const TAPER_PX = 22;
/** How far, and over what length, it leaves the straight line, in px. */
const MEANDER = { depth: 7, length: 300 };
/** Tokens/s that fill the height, unless more come. */
const FULL_RATE = 60;
/** Below this distance, in px, single tokens can't be told apart. */
const TOKEN_PX = 3;
/** Without a token the picture moves on this often, in ms. */
const IDLE_MS = 100;
/** Arrivals are counted in so many buckets of time at most, so that a picture costs the same after any number of tokens. */
const BUCKETS = 4096;
const BUCKET_MS = 0.1;
/** Frames/s for eyes that don't want motion. */
const CALM_FPS = 2;
/** Distances of the time marks to choose from, in s. */
const MARKS_S = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600];
const MARK_PX = 90;

/** @param {HTMLCanvasElement} canvas */
export function createTimeline(canvas) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const schemes = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
  let width = 0, height = 0; // of the canvas, in px
  const style = getComputedStyle(canvas);

  const t = {
    start: 0,
    end: /** @type {number | undefined} */ (0), // absent while it runs
    arrivals: /** @type {number[]} */ ([]), // ms since the start
    buckets: /** @type {number[]} */ ([]), // how many of them in each `bucketMs`
    bucketMs: BUCKET_MS,
    fresh: false, // a token is not drawn yet
    cuts: /** @type {[number, number | undefined][]} */ ([]), // from, to
    drawn: 0,
    loop: 0, // the next frame
  };

  new ResizeObserver(() => {
    ({ clientWidth: width, clientHeight: height } = canvas);
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    draw();
  }).observe(canvas);
  for (const scheme of schemes) scheme.addEventListener("change", draw);

  return {
    /** Begins a new picture. */
    start() {
      Object.assign(t, { start: performance.now(), end: undefined, arrivals: [], buckets: [], bucketMs: BUCKET_MS, cuts: [] });
      cancelAnimationFrame(t.loop); // of the picture before, if that still runs
      t.loop = requestAnimationFrame(frame);
    },
    token() {
      const at = since();
      t.arrivals.push(at);
      t.fresh = true;
      while (at >= BUCKETS * t.bucketMs) {
        t.buckets = Array.from({ length: Math.ceil(t.buckets.length / 2) }, (_, i) => (t.buckets[2 * i] ?? 0) + (t.buckets[2 * i + 1] ?? 0));
        t.bucketMs *= 2;
      }
      const bucket = Math.floor(at / t.bucketMs);
      t.buckets[bucket] = (t.buckets[bucket] ?? 0) + 1;
    },
    /** The connection is lost. */
    cut() { if (!open()) t.cuts.push([since(), undefined]); },
    /** It is there again. */
    mended() {
      const last = open();
      if (last) last[1] = since();
    },
    end() {
      t.end ??= since();
      const last = open();
      if (last) last[1] = t.end;
      canvas.setAttribute("aria-label", `The arrival of tokens over time: ${describe()}`);
      draw();
    },
  };

  function since() { return performance.now() - t.start; }

  /** The cut that is not mended yet. */
  function open() {
    const last = t.cuts.at(-1);
    return last && last[1] === undefined ? last : undefined;
  }

  /** The picture in words. */
  function describe() {
    const [first] = t.arrivals;
    if (first === undefined) return "none came.";
    let pause = 0;
    for (let i = 1; i < t.arrivals.length; i++) pause = Math.max(pause, t.arrivals[i] - t.arrivals[i - 1]);
    const cuts = t.cuts.length ? `, ${t.cuts.length} interruption${t.cuts.length > 1 ? "s" : ""} mended` : "";
    return `${t.arrivals.length} in ${seconds(t.end ?? 0)}, the first after ${seconds(first)}, longest pause ${seconds(pause)}${cuts}.`;
  }

  /** @param {number} now */
  function frame(now) {
    if (t.end !== undefined) return;
    t.loop = requestAnimationFrame(frame);
    if (now - t.drawn < (calm.matches ? 1000 / CALM_FPS : t.fresh ? 0 : IDLE_MS)) return;
    t.drawn = now;
    t.fresh = false;
    draw();
  }

  function draw() {
    const context = canvas.getContext("2d");
    if (!context || !width) return;
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
    context.clearRect(0, 0, width, height);
    const colour = (/** @type {string} */ role) => style.getPropertyValue(`--${role}`);
    const now = t.end ?? since();
    const burst = t.end !== undefined && t.arrivals.length && now < BURST_MS;
    const span = Math.max(burst ? LEAST_MS : SPAN_MS, now);
    // The picture is as wide as the window; its time, as the text column.
    const inset = Math.max(20, (width - 704) / 2);
    const x = (/** @type {number} */ ms) => inset + (ms / span) * (width - 2 * inset);
    const middle = (/** @type {number} */ px) => height / 2 - 8 + MEANDER.depth * Math.sin((px - inset) * 2 * Math.PI / MEANDER.length);

    line(0, width, colour("line")); // the bed
    marks();
    stream();
    cuts();
    if (t.end === undefined) drop();

    function marks() {
      const step = MARKS_S.find((s) => x(s * 1000) - x(0) >= MARK_PX) ?? span / 4000;
      if (!context || (!now && !t.arrivals.length)) return;
      context.fillStyle = colour("quiet");
      context.font = `12px ${style.fontFamily}`;
      context.textAlign = "center";
      for (let s = 0; s * 1000 <= span; s += step) {
        context.fillText(mark(s, step), x(s * 1000), height - 4);
      }
    }

    function stream() {
      if (!context || !t.arrivals.length) return;
      const first = x(t.arrivals[0]), last = x(now);
      const [least, most] = SMOOTH_PARTS.map((part) => width * part);
      const rates = density(t.buckets, t.bucketMs, x, width, Math.min(Math.max(x(SMOOTH_MS) - x(0), least), most));
      const perPixel = span / (width - 2 * inset) / 1000; // s
      const full = Math.max(FULL_RATE * perPixel, ...rates);
      const room = height / 2 - 24;
      const from = first - TAPER_PX / 2;
      const half = rates.map((rate, px) => 0.75 + room * Math.sqrt(rate / full) * taper(px - from) * taper(last - px));
      context.beginPath();
      for (let px = Math.floor(from); px <= last; px++) context.lineTo(px, middle(px) - half[px]);
      context.lineTo(last, middle(last));
      for (let px = Math.floor(last); px >= from; px--) context.lineTo(px, middle(px) + half[px]);
      context.closePath();
      context.fillStyle = colour("paper"); // the bed can't be seen through the water
      context.fill();
      context.fillStyle = colour("shallow");
      context.fill();
      context.strokeStyle = colour("water");
      context.lineWidth = 1.25;
      context.stroke();

      if ((last - first) / t.arrivals.length < TOKEN_PX) return;
      context.beginPath();
      for (const arrival of t.arrivals) {
        const at = x(arrival), reach = half[Math.round(at)] * 0.5;
        context.moveTo(at, middle(at) - reach);
        context.lineTo(at, middle(at) + reach);
      }
      context.lineCap = "round";
      context.globalAlpha = 0.55;
      context.stroke();
      context.globalAlpha = 1;
    }

    function cuts() {
      for (const [from, to] of t.cuts) {
        line(x(from), x(to ?? now), colour("paper"), [], 5);
        line(x(from), x(to ?? now), colour("alarm"), [1, 5], 3);
      }
    }

    function drop() {
      if (!context) return;
      context.beginPath();
      context.arc(x(now), middle(x(now)), 4, 0, 2 * Math.PI);
      context.fillStyle = open() ? colour("alarm") : colour("water");
      context.fill();
    }

    /** @param {number} from @param {number} to @param {string} stroke @param {number[]} [dash] */
    function line(from, to, stroke, dash = [], weight = 1.25) {
      if (!context) return;
      context.save();
      context.setLineDash(dash);
      context.lineCap = "round";
      context.lineWidth = weight;
      context.strokeStyle = stroke;
      context.beginPath();
      for (let px = from; px <= to; px++) context.lineTo(px, middle(px));
      context.stroke();
      context.restore();
    }
  }
}

/** Tokens for each pixel, smoothed: three box blurs are as good as a bell curve.
 * @param {number[]} buckets @param {number} bucketMs @param {(ms: number) => number} x @param {number} width @param {number} radius */
function density(buckets, bucketMs, x, width, radius) {
  let counts = new Array(Math.ceil(width) + 1).fill(0);
  buckets.forEach((count, i) => { counts[Math.round(x(i * bucketMs))] += count; });
  const reach = Math.max(1, Math.round(radius));
  for (let pass = 0; pass < 3; pass++) {
    let sum = 0;
    for (let i = 0; i < reach; i++) sum += counts[i];
    counts = counts.map((_, i) => {
      sum += (counts[i + reach] ?? 0) - (counts[i - reach - 1] ?? 0);
      return sum / (2 * reach + 1);
    });
  }
  return counts;
}

/** From 0 to 1, round at the point and smooth at the full width. @param {number} px */
function taper(px) {
  const part = Math.min(Math.max(px / TAPER_PX, 0), 1);
  return Math.sqrt(1 - (1 - part) ** 2);
}

/** @param {number} s @param {number} step between two marks */
function mark(s, step) {
  if (step < 0.5) return `${Math.round(s * 1000)} ms`;
  return step < 60 ? `${s} s` : `${s / 60} min`;
}

/** @param {number} ms */
const seconds = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
