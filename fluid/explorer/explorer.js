// The explorer of regions: draws what a source answers, and computes no figure of its own.
//
// A source has `region(setting)`, a promise of an answer of `Explorer.region`, and
// `latencies(setting, withCurve)`, an async iterator over rows of `Explorer.latency` with `now` for
// that of the load itself.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 460, HEIGHT = 340, LEFT = 58, RIGHT = 14, TOP = 14, BOTTOM = 46;
const INNER_WIDTH = WIDTH - LEFT - RIGHT, INNER_HEIGHT = HEIGHT - TOP - BOTTOM;
const FACTOR_NAMES = {
  prompt_factor: "prompts", output_factor: "outputs",
  memory_factor: "KV memory", overhead_factor: "overhead",
};
const FIGURES = {
  margin: "margin", binding: "binds first", limit: "limit of this mix", ttft: "mean TTFT",
  p99: "p99 TTFT", tpot: "mean TPOT", pace: "pace at the limit", iteration: "iteration there",
};

const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const shown = value => value === null || value === undefined ? "–" : digits.format(value);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 }).format;
const percent = share => `${digits.format(100 * share)} %`;
function seconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1 ? `${shown(1000 * value)} ms` : `${shown(value)} s`;
}
const sum = values => values.reduce((a, b) => a + b, 0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// The place of the level that is nearest on a logarithmic scale.
function nearest(levels, value) {
  let best = 0;
  const distance = one => Math.abs(Math.log(one / value));
  levels.forEach((one, k) => { if (distance(one) < distance(levels[best])) best = k; });
  return best;
}

function ticks(top, about) {
  const rough = top / about, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find(one => one * power >= rough) * power;
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, k) => k * step);
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const one of [1, 2, 5]) {
      const value = one * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  return found.length > 7 ? found.filter(one => /^1/.test(one.toExponential())) : found;
}

function frame(svg, across, up, labels) {
  svg.replaceChildren();
  for (const [value, x] of across) {
    drawn(svg, "line", { x1: x, x2: x, y1: TOP, y2: TOP + INNER_HEIGHT, class: "grid" });
    drawn(svg, "text", { x, y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, value);
  }
  for (const [value, y] of up) {
    drawn(svg, "line", { x1: LEFT, x2: LEFT + INNER_WIDTH, y1: y, y2: y, class: "grid" });
    drawn(svg, "text", { x: LEFT - 6, y: y + 5, "text-anchor": "end" }, value);
  }
  drawn(svg, "text", { x: LEFT + INNER_WIDTH / 2, y: HEIGHT - 8, "text-anchor": "middle" }, labels[0]);
  const middle = TOP + INNER_HEIGHT / 2;
  drawn(svg, "text",
    { x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` }, labels[1]);
  return drawn(svg, "svg",
    { x: LEFT, y: TOP, width: INNER_WIDTH, height: INNER_HEIGHT, class: "inner" });
}

const path = points => points.map(one => one.join(",")).join(" ");

export function mount(root, known, source) {
  const start = structuredClone(known.start), classes = known.classes;
  const single = classes.length === 1;
  const grid = known.grid;
  const rateLevels = grid ? grid.rate_levels : known.rate_levels;
  const factorLevels = grid ? grid.factor_levels : known.factor_levels;
  let setting, most, answer, first, curve, now, curveKey, wanted = 0, busy = false, measuring = 0;

  // ---- what stands on the page -------------------------------------------------------------
  const verdict = element("p", { class: "verdict", role: "status", "aria-live": "polite" });
  const regionPicture = document.createElementNS(SVG, "svg");
  const timesPicture = document.createElementNS(SVG, "svg");
  for (const one of [regionPicture, timesPicture])
    one.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  regionPicture.setAttribute("role", "img");
  timesPicture.setAttribute("role", "img");
  const progress = element("span", { class: "progress" });
  const timesCaption = element("figcaption", {}, "TTFT by total rate of this mix ", progress);
  const timesNote = element("p", { class: "note" });
  const figures = {};
  const list = element("dl", { class: "figures" });
  for (const [name, label] of Object.entries(FIGURES)) {
    figures[name] = element("dd", { "data-figure": name }, "–");
    list.append(element("div", {}, element("dt", {}, label), figures[name]));
  }
  const controls = element("form", { class: "controls", "aria-label": "Settings" });
  controls.addEventListener("submit", event => event.preventDefault());
  const codeText = element("pre", { tabindex: "0", "aria-label": "Python for this state" });
  const code = element("details", {}, element("summary", {}, "Python for this state"), codeText);
  const regionCaption = element("figcaption", {},
    single ? "Stable rates, up to the line; drag the point" : "Stable rates; drag the point");
  root.classList.add("fluidwait-explorer");
  root.replaceChildren(element("div", { class: "columns" },
    element("div", { class: "seen" }, verdict,
      element("div", { class: "pictures" },
        element("figure", {}, regionCaption, regionPicture),
        element("figure", {}, timesCaption, timesPicture, timesNote)),
      list),
    controls), code);

  const sliders = [];
  function slider(name, label, levels, get, set, text) {
    if (levels.length < 2) return;
    const output = element("output");
    const input = element("input",
      { type: "range", min: 0, max: levels.length - 1, step: 1, name, "aria-label": label });
    input.addEventListener("input", () => { set(levels[input.valueAsNumber]); changed(); });
    controls.append(element("label", {}, element("span", {}, label), output, input));
    sliders.push(() => {
      input.value = nearest(levels, get());
      const said = text(get());
      output.textContent = said;
      input.setAttribute("aria-valuetext", said);
    });
  }
  function menu(label, names, get, set) {
    const select = element("select", { "aria-label": label },
      ...names.map((one, k) => element("option", { value: k }, one)));
    select.addEventListener("change", () => { set(Number(select.value)); changed(); });
    controls.append(element("label", {}, element("span", {}, label), select));
    sliders.push(() => { select.value = get(); });
  }
  function button(label, act) {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", act);
    return made;
  }

  if (known.servers.length > 1 && !grid)
    menu("server", known.servers.map(one => one.name), () => setting.server,
      value => { setting.server = value; });
  if (classes.length > 2 && !grid)
    for (const [place, label] of [[0, "across"], [1, "up"]])
      menu(label, classes, () => setting.axes[place], value => {
        if (setting.axes[1 - place] === value) setting.axes[1 - place] = setting.axes[place];
        setting.axes[place] = value;
      });
  classes.forEach((name, k) => slider(`rate_${k}`, `${name}, requests/s`, rateLevels[k],
    () => setting.rates_per_s[k], value => { setting.rates_per_s[k] = value; }, shown));
  for (const [name, label] of Object.entries(FACTOR_NAMES))
    slider(name, label, factorLevels[name], () => setting[name],
      value => { setting[name] = value; }, value => `× ${shown(value)}${inUnits(name)}`);
  controls.append(element("div", { class: "buttons" }, button("reset", reset),
    button("fit axes", () => { fit(); draw(); }), button("copy as code", copy)));
  if (grid)
    controls.append(element("p", { class: "note" },
      "This file holds answers on a grid: sliders stop at its levels, the point goes to the nearest " +
      "one" + (classes.length > 2 ? ", and what has no slider stays" : "") + ". Latencies are in it " +
      "where at most one of the lower sliders is off its start."));
  root.append(element("p", { class: "note" },
    "The region is the fluid limit: no policy carries more, few reach all of it. Latencies are " +
    "predicted, not measured."));

  function inUnits(name) {
    if (!answer) return "";
    if (name === "memory_factor") return ` = ${whole(answer.kv_tokens)} tokens`;
    if (name === "overhead_factor") return ` = ${seconds(answer.overhead_s)}`;
    const place = name === "prompt_factor" ? 0 : 1;
    const lengths = answer.lengths_tokens.map(one => one[place]);
    return lengths.length > 2 ? "" : ` = ${lengths.map(one => whole(one)).join(", ")} tokens`;
  }

  // ---- what happens when something moves --------------------------------------------------
  function reset() {
    setting = structuredClone(start);
    most = [...known.most_per_s];
    changed();
  }

  function fit() {
    if (!answer?.boundary_per_s?.length) return;
    setting.axes.forEach((k, place) => {
      const ends = answer.boundary_per_s.map(one => one[place]);
      most[k] = 1.25 * Math.max(...ends, setting.rates_per_s[k]);
    });
  }

  async function copy() {
    code.open = true;
    const range = document.createRange();
    range.selectNodeContents(codeText);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    try { await navigator.clipboard.writeText(codeText.textContent); } catch { /* it is selected */ }
  }

  // Only the newest setting is asked about: a slider that moves on leaves the others unasked.
  async function changed() {
    wanted += 1;
    measuring += 1;
    progress.textContent = "computing…";
    sliders.forEach(one => one());
    draw();
    if (busy) return;
    busy = true;
    let done = 0;
    try {
      while (done !== wanted) {
        done = wanted;
        answer = await source.region(structuredClone(setting));
        first ??= answer;
        sliders.forEach(one => one());
        draw();
      }
    } catch (error) {
      verdict.textContent = `No answer: ${error.message}`;
      progress.textContent = "stale";
      return;
    } finally {
      busy = false;
    }
    await measure();
  }

  async function measure() {
    const mine = measuring;
    const { rates_per_s, axes, ...rest } = setting, total = sum(rates_per_s);
    const key = JSON.stringify([rest, rates_per_s.map(one => (one / total).toPrecision(9))]);
    const isNew = key !== curveKey || Boolean(grid);
    const rows = [];
    try {
      for await (const row of source.latencies(structuredClone(setting), isNew)) {
        if (mine !== measuring) return;
        if (row.now) now = row;
        if (!row.now || grid) rows.push(row);
        if (isNew) curve = [...rows];
        draw();
      }
    } catch (error) {
      if (mine === measuring) progress.textContent = `stale: ${error.message}`;
      return;
    }
    if (mine !== measuring) return;
    curveKey = key;
    progress.textContent = "";
    draw();
  }

  // ---- pictures ----------------------------------------------------------------------------
  function draw() {
    const stale = progress.textContent !== "";
    timesPicture.classList.toggle("stale", stale);
    for (const name of ["ttft", "p99", "tpot"]) figures[name].classList.toggle("stale", stale);
    if (!answer) return;
    say();
    drawRegion();
    drawTimes();
  }

  function say() {
    codeText.textContent = answer.code;
    const known = answer.refusal === undefined;
    verdict.classList.toggle("unstable", !known || !answer.stable);
    if (!known) verdict.textContent = `No region: ${answer.refusal}`;
    else if (answer.stable)
      verdict.textContent = `STABLE: ${percent(answer.margin)} of the boundary load is free; all ` +
        `rates can grow by a factor ${shown(answer.max_scale)} before ${answer.binding} binds.`;
    else
      verdict.textContent = `UNSTABLE: the queue grows for ever, ${answer.binding} binds. Multiply ` +
        `all rates by at most ${shown(answer.max_scale)}, or change the server.`;
    figures.margin.textContent = known ? percent(answer.margin) : "–";
    figures.binding.textContent = known ? answer.binding : "–";
    figures.limit.textContent = known ? `${shown(answer.limit_per_s)} /s` : "–";
    figures.pace.textContent = known ? `${shown(answer.pace_per_iteration)} / iteration` : "–";
    figures.iteration.textContent = known ? seconds(answer.boundary_iteration_s) : "–";
    figures.ttft.textContent = seconds(now?.ttft_mean_s);
    figures.p99.textContent = seconds(now?.ttft_p99_s);
    figures.tpot.textContent = seconds(now?.tpot_mean_s);
  }

  function drawRegion() {
    const [a, b] = setting.axes;
    const topX = most[a], topY = single ? 1 : most[b];
    const x = value => value / topX * INNER_WIDTH;
    const y = value => INNER_HEIGHT - (single ? 0.5 : value / topY) * INNER_HEIGHT;
    const inner = frame(regionPicture,
      ticks(topX, 6).map(one => [shown(one), LEFT + x(one)]),
      single ? [] : ticks(topY, 5).map(one => [shown(one), TOP + y(one)]),
      [`${classes[a]}, requests/s`, single ? "" : `${classes[b]}, requests/s`]);
    const boundary = answer.boundary_per_s ?? [];
    if (single && boundary.length) {
      const end = x(boundary[0][0]);
      drawn(inner, "line", { x1: 0, x2: end, y1: y(0), y2: y(0), class: "bar" });
      drawn(inner, "line", { x1: end, x2: end, y1: y(0) - 30, y2: y(0) + 30, class: "boundary" });
    } else if (boundary.length) {
      const points = boundary.map(one => [x(one[0]), y(one[1])]);
      drawn(inner, "polygon", { points: path([[x(0), y(0)], ...points]), class: "stable" });
      drawn(inner, "polyline", { points: path(points), class: "boundary" });
    }
    if (!single && first?.boundary_per_s && String(setting.axes) === String(start.axes))
      drawn(inner, "polyline",
        { points: path(first.boundary_per_s.map(one => [x(one[0]), y(one[1])])), class: "first" });
    if (!single && !boundary.length && answer.refusal === undefined)
      drawn(inner, "text", { x: INNER_WIDTH / 2, y: INNER_HEIGHT / 2, "text-anchor": "middle" },
        "the classes that stay are too much alone");
    const px = x(setting.rates_per_s[a]), py = single ? y(0) : y(setting.rates_per_s[b]);
    const cx = LEFT + clamp(px, 0, INNER_WIDTH), cy = TOP + clamp(py, 0, INNER_HEIGHT);
    const beyond = px > INNER_WIDTH + 1 || py < -1;
    const stable = answer.stable === true;
    const mark = stable ? "stable" : "UNSTABLE";
    const text = answer.refusal !== undefined ? "does not fit" : mark;
    const right = cx > LEFT + 0.6 * INNER_WIDTH;
    drawn(regionPicture, "text", {
      x: cx + (right ? -15 : 15), y: clamp(cy - (single ? 28 : 12), TOP + 14, HEIGHT), class: "mark",
      "text-anchor": right ? "end" : "start",
    }, beyond ? `${text}, beyond the axes` : text);
    drawn(regionPicture, "circle", { cx, cy, r: 8, class: stable ? "point" : "point unstable" });
    if (!stable)
      drawn(regionPicture, "path",
        { d: `M${cx - 4},${cy - 4}l8,8m0,-8l-8,8`, class: "cross" });
    const handle = drawn(regionPicture, "circle", { cx, cy, r: 22, class: "handle" });
    handle.addEventListener("pointerdown", dragged);
    regionPicture.setAttribute("aria-label", `Region of stable rates. ${verdict.textContent}`);
  }

  // The picture is drawn anew while the point moves, so that the window listens, not the point.
  function dragged(event) {
    event.preventDefault();
    const move = moved => {
      const box = regionPicture.getBoundingClientRect(), scale = WIDTH / box.width;
      const across = ((moved.clientX - box.left) * scale - LEFT) / INNER_WIDTH;
      const up = 1 - ((moved.clientY - box.top) * scale - TOP) / INNER_HEIGHT;
      setting.axes.forEach((k, place) => {
        const levels = rateLevels[k], share = place === 0 ? across : up;
        const value = clamp(share * most[k], levels[0], levels.at(-1));
        setting.rates_per_s[k] = grid ? levels[nearest(levels, value)] : value;
      });
      changed();
    };
    const end = () => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", end);
      removeEventListener("pointercancel", end);
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", end);
    addEventListener("pointercancel", end);
  }

  function drawTimes() {
    const here = now && now.refusal === undefined ? [now] : [];
    const isOfMix = progress.textContent === "" && !curve?.some(one => one.now);
    const rows = [...(curve ?? []), ...(isOfMix ? here : [])]
      .filter(one => one.refusal === undefined)
      .sort((one, other) => one.rate_per_s - other.rate_per_s);
    const values = [...rows, ...here].flatMap(one => [one.ttft_mean_s, one.ttft_p99_s]);
    const low = Math.min(...values, Infinity) / 1.3, high = Math.max(...values, 0) * 1.3;
    const total = sum(setting.rates_per_s);
    const topX = Math.max(1.06 * (answer.limit_per_s ?? 0), 1.02 * total,
      ...rows.map(one => one.rate_per_s));
    const x = value => value / topX * INNER_WIDTH;
    const y = value => (1 - Math.log(value / low) / Math.log(high / low)) * INNER_HEIGHT;
    const inner = frame(timesPicture, ticks(topX, 6).map(one => [shown(one), LEFT + x(one)]),
      values.length ? logTicks(low, high).map(one => [shown(one), TOP + y(one)]) : [],
      ["total rate, requests/s", "seconds"]);
    if (answer.limit_per_s !== undefined && x(answer.limit_per_s) <= INNER_WIDTH) {
      const end = x(answer.limit_per_s);
      drawn(inner, "line", { x1: end, x2: end, y1: 0, y2: INNER_HEIGHT, class: "boundary" });
      drawn(inner, "text", { x: end - 5, y: 14, "text-anchor": "end", class: "small" }, "limit");
    }
    drawn(inner, "line", { x1: x(total), x2: x(total), y1: 0, y2: INNER_HEIGHT, class: "now" });
    for (const [name, label, kind] of [["ttft_p99_s", "p99", "p99"], ["ttft_mean_s", "mean", "mean"]]) {
      const points = rows.map(one => [x(one.rate_per_s), y(one[name])]);
      drawn(inner, "polyline", { points: path(points), class: kind });
      for (const [k, one] of rows.entries())
        drawn(inner, "circle", { cx: points[k][0], cy: points[k][1], r: 3,
          class: trusted(one, name) ? kind : `${kind} doubtful` });
      const last = points.at(-1); // the line rises to it, so that its upper left is free
      if (last)
        drawn(inner, "text", { x: last[0] - 8, y: last[1] - 8, "text-anchor": "end",
          class: `${kind} label` }, label);
      for (const one of here)
        drawn(inner, "circle", { cx: x(one.rate_per_s), cy: y(one[name]), r: 6, class: `${kind} here` });
    }
    timesNote.textContent = remark(rows);
    timesPicture.setAttribute("aria-label", "Time to first token against total rate. " +
      (here.length ? `Here mean ${seconds(now.ttft_mean_s)}, p99 ${seconds(now.ttft_p99_s)}.` : ""));
  }

  const trusted = (row, name) =>
    row.holds === "all" || (row.holds === "means" && name.includes("mean"));

  function remark(rows) {
    const said = [`Under ${known.servers[setting.server].scheduler}.`];
    if (now?.refusal) said.push(`No latencies here: ${now.refusal}.`);
    else if (now?.holds === "means") said.push("Take p99 here from a simulation.");
    else if (now?.holds === "nothing") said.push("Do not rely on the figures here; simulate.");
    if (rows.some(one => !trusted(one, "ttft_p99_s")))
      said.push("Hollow points are not to be relied on.");
    return said.join(" ");
  }

  reset();
}

// ---- sources ---------------------------------------------------------------------------------

// Asks a Python for every answer; `ask` is a function from a question to a promise.
function asking(known, ask) {
  return {
    region: setting => ask({ about: "region", setting }),
    async *latencies(setting, withCurve) {
      const now = await ask({ about: "latency", setting });
      yield { ...now, now: true };
      if (!withCurve) return;
      for (const share of known.curve) {
        const row = await ask({ about: "latency", setting, share });
        yield row;
        if (row.refusal !== undefined) return;
      }
    },
  };
}

// Looks everything up in what `Grid.document` holds.
function lookedUp(known) {
  const { rate_levels, factor_levels, combinations, latencies } = known.grid;
  const mixed = (places, sizes) => places.reduce((index, one, k) => index * sizes[k] + one, 0);
  const combination = setting => {
    const names = Object.keys(factor_levels);
    return mixed(names.map(one => nearest(factor_levels[one], setting[one])),
      names.map(one => factor_levels[one].length));
  };
  const cell = places => mixed(places, rate_levels.map(one => one.length));
  const placesOf = setting => setting.rates_per_s.map((one, k) => nearest(rate_levels[k], one));
  return {
    async region(setting) {
      const found = combinations[combination(setting)];
      const rates = `rates_per_s = ${JSON.stringify(setting.rates_per_s)}`;
      const code = found.code.replace(/^rates_per_s = .*$/m, () => rates);
      if (found.refusal !== undefined) return { ...found, code };
      const k = cell(placesOf(setting)), max_scale = found.max_scale[k];
      return {
        ...found, code, max_scale, stable: max_scale >= 1, margin: 1 - 1 / max_scale,
        binding: found.binding[k], pace_per_iteration: found.pace_per_iteration[k],
        boundary_iteration_s: found.boundary_iteration_s[k],
        limit_per_s: max_scale * sum(setting.rates_per_s),
      };
    },
    async *latencies(setting) {
      const found = latencies[combination(setting)], places = placesOf(setting);
      const total = sum(setting.rates_per_s);
      if (!found) {
        const why = combinations[combination(setting)].refusal
          ?? "this file has them where at most one of the lower sliders is off its start";
        yield { rate_per_s: total, refusal: why, now: true };
        return;
      }
      const moving = rate_levels.map(one => one.length > 1);
      for (let step = -rate_levels[0].length; step <= rate_levels[0].length; step++) {
        const there = places.map((one, k) => moving[k] ? one + step : one);
        if (there.some((one, k) => one < 0 || one >= rate_levels[k].length)) continue;
        const row = found[cell(there)];
        if (row) yield { ...row, now: step === 0 };
        else if (step === 0)
          yield { rate_per_s: total, refusal: "the queue of an unstable load grows for ever", now: true };
      }
    },
  };
}

// On a page of its own, in a file or served.
export function mountPage(root, known) {
  const ask = async question => {
    const reply = await fetch(`answer?question=${encodeURIComponent(JSON.stringify(question))}`)
      .catch(() => { throw new Error("the command that serves this page has ended"); });
    return reply.json();
  };
  mount(root, known, known.grid ? lookedUp(known) : asking(known, ask));
}

// In a notebook.
function render({ model, el }) {
  const open = new Map();
  let last = 0;
  const view = Math.random().toString(36);
  const hear = message => {
    open.get(message.number)?.(message.answer);
    open.delete(message.number);
  };
  model.on("msg:custom", hear);
  const ask = question => new Promise(resolve => {
    const number = `${view}-${last += 1}`;
    open.set(number, resolve);
    model.send({ number, question });
  });
  mount(el, model.get("known"), asking(model.get("known"), ask));
  return () => model.off("msg:custom", hear);
}

export default { render };
