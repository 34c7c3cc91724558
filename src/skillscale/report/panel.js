const SEARCH_REACH = Math.log(1e6), POINTS = 97, WIDTH = (2 * SEARCH_REACH) / (POINTS - 1);
const MOST_MISSING = 0.01, BEYOND = 1.01, FAR = 10, GROWTH_STEPS = 30;

function decode(text) {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const value = new Uint8Array(128), bytes = new Uint8Array((text.replace(/=+$/, "").length * 3) >> 2);
  for (let i = 0; i < 64; i++) value[letters.charCodeAt(i)] = i;
  for (let i = 0, at = 0, bits = 0, held = 0; at < bytes.length; i++) {
    held = (held << 6) | value[text.charCodeAt(i)];
    bits += 6;
    if (bits >= 8) { bits -= 8; bytes[at++] = (held >> bits) & 255; }
  }
  return new Float32Array(bytes.buffer);
}

// Percentile interval of draws about an estimate; unknown if over 1 % of the draws have no value. Of values that may be
// infinite ("open") the ends are draws, without interpolation
function interval(value, draws, level, open) {
  const finite = Float64Array.from(draws.filter(open ? (x) => !Number.isNaN(x) : Number.isFinite)).sort();
  if ((open ? Number.isNaN(value) : !Number.isFinite(value)) || !finite.length || finite.length < (1 - MOST_MISSING) * draws.length) return [value, NaN, NaN];
  const end = (share) => {
    if (open) return finite[Math.max(Math.ceil(share * finite.length - 1e-9) - 1, 0)];
    const place = share * (finite.length - 1), low = Math.floor(place), high = Math.ceil(place);
    return low === high ? finite[low] : finite[low] + (place - low) * (finite[high] - finite[low]);
  };
  return [value, end((1 - level) / 2), end((1 + level) / 2)];
}

// Least f between a and c, where b is lower than both ends: Brent's method
function brent(f, a, b, c, fb) {
  let x = b, w = b, v = b, fx = fb, fw = fb, fv = fb, step = 0, last = 0;
  for (let i = 0; i < 40; i++) {
    const middle = (a + c) / 2, tol = 1e-5;
    if (Math.abs(x - middle) <= 2 * tol - (c - a) / 2) break;
    let golden = true;
    if (i === 0 || Math.abs(last) > tol) {
      const r = (x - w) * (fx - fv), q0 = (x - v) * (fx - fw);
      let p = (x - v) * q0 - (x - w) * r, q = 2 * (q0 - r);
      if (q > 0) p = -p; else q = -q;
      if (Math.abs(p) < Math.abs(0.5 * q * last) && p > q * (a - x) && p < q * (c - x)) {
        last = step; step = p / q; golden = false;
      }
    }
    if (golden) { last = x < middle ? c - x : a - x; step = 0.381966 * last; }
    const u = x + (Math.abs(step) >= tol ? step : step > 0 ? tol : -tol), fu = f(u);
    if (fu <= fx) { if (u < x) c = x; else a = x; v = w; fv = fw; w = x; fw = fx; x = u; fx = fu; }
    else {
      if (u < x) a = u; else c = u;
      if (fu <= fw || w === x) { v = w; fv = fw; w = u; fw = fu; } else if (fu <= fv || v === x || v === w) { v = u; fv = fu; }
    }
  }
  return x;
}

function makePanel(data, formulas) {
  const q = decode(data.draws);
  let alone = { key: "", optima: [] };  // of each skill by itself, which weights and candidate do not change

  // Losses of all rows for one question: the estimate first, then the draws
  function losses(group, mix, stride) {
    const h = mix.map((share) => Math.max(share, 1e-200));
    const name = mix.map((share) => Math.round(1000 * share)).join(" ");
    const rows = [];
    group.parts.forEach((part, at) => {
      const laws = part.laws.map((law) => ({ ...law, form: formulas[law.form], offset: law.offsets[name] || 0 }));
      for (let row = 0; row < part.rows; row++) if (row % stride === 0 || (at === 0 && row === 0)) {
        rows.push((i, s, t) => {
          const law = laws[i];
          return Math.exp(law.form(q, law.at + row * law.p, s - law.x0, t - s - law.y0, h) + law.offset);
        });
      }
    });
    return rows;
  }

  function optima(group, rows, weights, t) {
    const used = weights.map((weight, i) => [weight, i]).filter(([weight]) => weight > 0);
    const centre = group.parts.map((part) => part.laws.reduce((sum, law) => sum + law.x0 - law.y0, 0) / part.laws.length);
    const start = (t + centre[0]) / 2 - SEARCH_REACH;
    let near = -1;
    return rows.map((loss) => {
      const f = (s) => {
        let sum = 0;
        for (const [weight, i] of used) sum += weight * loss(i, s, t);
        return Number.isFinite(sum) ? sum : Infinity;
      };
      const at = (i) => f(start + i * WIDTH);
      let best = near, value = Infinity;
      if (near < 0) for (let i = 0; i < POINTS; i++) { const here = at(i); if (here < value) { value = here; best = i; } }
      else value = at(best);
      if (best < 0) return NaN;
      let before = best > 0 ? at(best - 1) : Infinity, after = best < POINTS - 1 ? at(best + 1) : Infinity;
      while (before < value && best > 0) { best--; after = value; value = before; before = best > 0 ? at(best - 1) : Infinity; }
      while (after < value && best < POINTS - 1) { best++; before = value; value = after; after = best < POINTS - 1 ? at(best + 1) : Infinity; }
      if (near < 0) near = best;
      if (best <= 0 || best >= POINTS - 1 || !Number.isFinite(value)) return NaN;
      const x = start + best * WIDTH;
      return brent(f, x - WIDTH, x, x + WIDTH, value);
    });
  }

  // ln(C' / C) at which more tokens at this size reach the least loss: a bracket, then false position (Illinois)
  function growth(f, least) {
    if (!Number.isFinite(least)) return NaN;
    let low = 0, high = 0.1, above = f(0) - least, below = f(high) - least, side = 0;
    if (above <= 0) return 0;
    while (below > 0) {
      if (high >= SEARCH_REACH) return Infinity;
      low = high; above = below;
      high = Math.min(2 * high, SEARCH_REACH); below = f(high) - least;
    }
    for (let i = 0; i < GROWTH_STEPS && high - low > 1e-5; i++) {
      const middle = (low * below - high * above) / (below - above), here = f(middle) - least;
      if (Math.abs(here) < 1e-12) return middle;
      if (here > 0) { low = middle; above = here; if (side > 0) below /= 2; side = 1; }
      else { high = middle; below = here; if (side < 0) above /= 2; side = -1; }
    }
    return (low * below - high * above) / (below - above);
  }

  // question: C, weights by skill, mix, N of the candidate (or NaN), stride over the draws
  function answer(group, question) {
    const total = question.weights.reduce((a, b) => a + b, 0), weights = question.weights.map((weight) => weight / total);
    const t = Math.log(question.C / 6), rows = losses(group, question.mix, question.stride || 1);
    const of = (values, grows) => interval(values[0], values.slice(1), data.level, grows);
    const s = optima(group, rows, weights, t), N = of(s).map(Math.exp);
    const sum = (loss, place, budget) => weights.reduce((all, weight, i) => (weight > 0 ? all + weight * loss(i, place, budget) : all), 0);
    const result = { N, D: [0, 2, 1].map((end) => question.C / 6 / N[end]), ratio: [0, 2, 1].map((end) => question.C / 6 / N[end] ** 2) };
    result.loss = of(rows.map((loss) => sum(loss, s[0], t)));
    const key = JSON.stringify([data.groups.indexOf(group), question.C, question.mix, question.stride || 1]);
    if (alone.key !== key) {
      alone = { key, optima: group.skills.map((_, i) => optima(group, rows, weights.map((_, j) => (j === i ? 1 : 0)), t)) };
    }
    const unsure = decidedByPriors(group, question.C);
    result.skills = group.skills.map((skill, i) => {
      const best = alone.optima[i], at = rows.map((loss) => loss(i, s[0], t));
      return {
        N: of(best).map(Math.exp), loss: of(at), unsure: unsure(skill),
        excess: of(rows.map((loss, row) => Math.max(at[row] - loss(i, best[row], t), 0))),
        candidate: question.N > 0 ? of(rows.map((loss) => loss(i, Math.log(question.N), t))) : [NaN, NaN, NaN],
      };
    });
    if (question.N > 0) {
      const place = Math.log(question.N), least = rows.map((loss, row) => sum(loss, s[row], t));
      result.excess = of(rows.map((loss, row) => Math.max(sum(loss, place, t) - least[row], 0)));
      result.compute = of(rows.map((loss, row) => Math.expm1(growth((more) => sum(loss, place, t + more), least[row]))), true);
    }
    result.warnings = warnings(group, question, weights, result);
    result.beyond = result.warnings.length > 0;
    result.candidateWarnings = candidateWarnings(group, question, weights);
    return result;
  }

  // Whether weak priors decide N* of a skill at the budget, by those on both sides of it at which that is known
  function decidedByPriors(group, C) {
    const next = group.budgets.findIndex((budget) => budget >= C), last = group.budgets.length - 1;
    const near = next < 0 ? [last] : [Math.max(next - 1, 0), next];
    return (skill) => near.some((at) => skill.priors[at]);
  }

  const innermost = (used, name) => [Math.max(...used.map((skill) => skill[name][0])), Math.min(...used.map((skill) => skill[name][1]))];
  const outside = (N, sizes) => Math.min(N / sizes[0], sizes[1] / N) < 1 / BEYOND;
  const span = (sizes) => `the sizes of the runs, ${count(sizes[0])} to ${count(sizes[1])}.`;

  function candidateWarnings(group, question, weights) {
    if (!(question.N > 0)) return [];
    const used = group.skills.filter((_, i) => weights[i] > 0), sizes = innermost(used, "sizes"), tokens = innermost(used, "tokens");
    const lines = outside(question.N, sizes) ? [`The candidate lies outside ${span(sizes)}`] : [];
    if (question.C / 6 / question.N > FAR * tokens[1]) lines.push("The candidate's D is over 10 times the largest of the runs.");
    return lines;
  }

  function warnings(group, question, weights, result) {
    const used = group.skills.filter((_, i) => weights[i] > 0), lines = [];
    const reach = innermost(used, "reach"), sizes = innermost(used, "sizes"), tokens = innermost(used, "tokens");
    if (question.C > BEYOND * reach[1]) lines.push(`Beyond the runs: the budget is ${short(question.C / reach[1])} times the largest run.`);
    if (question.C * BEYOND < reach[0]) lines.push(`Below the runs: the smallest run has ${power(reach[0])} FLOP.`);
    if (!Number.isFinite(result.N[0])) lines.push("There is no best size: the loss falls towards an end of the search. Add runs that differ in N and D.");
    else {
      if (!Number.isFinite(result.N[1])) lines.push("N* has no interval: over 1 % of the draws have no best size.");
      if (outside(result.N[0], sizes)) lines.push(`N* lies outside ${span(sizes)}`);
      if (result.N[0] > FAR * sizes[1] || result.D[0] > FAR * tokens[1]) lines.push("N* or D* is over 10 times the largest of the runs. No run shows that the law holds there.");
    }
    const decided = used.filter(decidedByPriors(group, question.C)).map((skill) => skill.name);
    if (decided.length) lines.push(`Weak priors, not the runs, decide N* of ${decided.length > 1 && decided.length === used.length ? "these skills" : decided.join(", ")} here. N* is not identified.`);
    used.forEach((skill) => skill.reason && lines.push(`${skill.name}: ${skill.reason}`));
    const far = group.categories.filter((_, k) => group.range && (question.mix[k] < group.range[0][k] - 1e-6 || question.mix[k] > group.range[1][k] + 1e-6));
    if (far.length) lines.push(`The share of ${far.join(", ")} lies outside the mixes that were run.`);
    return lines;
  }

  return { answer };
}

const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace(/e\+/, "e") : "–");
const power = (value) => Number(value).toExponential(2).replace(/\.?0*e\+?/, "e");
function count(value) {
  if (!Number.isFinite(value)) return "–";
  const [unit, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([size]) => Number(value.toPrecision(3)) >= size) || [1, ""];
  const scaled = value / unit;
  return (scaled >= 1000 ? power(scaled) : scaled.toPrecision(3)) + letter;
}
function parse(text) {
  const match = /^\s*([\d.,]+(?:e[+-]?\d+)?)\s*([kmbgt]?)\s*$/i.exec(text);
  return match ? Number(match[1].replace(/,/g, "")) * { "": 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12 }[match[2].toLowerCase()] : NaN;
}

function mount(section, data, formulas) {
  const panel = makePanel(data, formulas), find = (name) => section.querySelector(`[data-part="${name}"]`);
  const make = (tag, text, properties) => Object.assign(document.createElement(tag), { textContent: text || "" }, properties);
  let group = data.groups[0], weights = [], mix = [], stride = 1, waiting = 0, settled = 0, flops = 0;

  const level = `${Math.round(100 * data.level)} %`;
  const spread = ([value, lo, hi], write) => [write(value), Number.isFinite(lo) ? `${write(lo)} to ${hi === Infinity ? "∞" : write(hi)}` : "no interval"];

  function slider(holder, label, properties, onInput) {
    const line = make("label"), range = make("input", "", { type: "range", ...properties }), shown = make("output");
    const show = (value, text) => { range.value = value; shown.textContent = text; range.setAttribute("aria-valuetext", text); };
    line.append(make("span", label), range, shown);
    range.addEventListener("input", () => onInput(Number(range.value)));
    holder.append(line);
    return show;
  }

  // A slider of the logarithm beside a field for the number
  function logarithm(name, low, high, value, write) {
    const range = find(`${name}-range`), field = find(name);
    Object.assign(range, { min: Math.log10(low), max: Math.log10(high), step: 0.01, value: Math.log10(value) });
    const say = () => range.setAttribute("aria-valuetext", field.value);
    field.value = write(value);
    range.oninput = () => { field.value = write(10 ** range.value); say(); schedule(); };
    field.oninput = () => { const given = parse(field.value); if (given > 0) range.value = Math.log10(given); say(); schedule(); };
    say();
  }

  const inHours = () => find("unit").value === "hours";
  const perHour = () => 3600 * 1e12 * parse(find("peak").value) * parse(find("use").value) / 100;
  const budget = () => parse(find("budget").value) * (inHours() ? perHour() : 1);

  function setBudget(C) {
    const reach = [Math.min(...group.skills.map((skill) => skill.reach[0])), Math.max(...group.skills.map((skill) => skill.reach[1]))];
    const unit = inHours() ? perHour() : 1;
    logarithm("budget", reach[0] / unit, (1e4 * reach[1]) / unit, C / unit, inHours() ? short : power);
  }

  function choose(index) {
    group = data.groups[index];
    weights = []; mix = [...group.mix];
    const skills = find("weights"), shares = find("mix");
    skills.replaceChildren(skills.firstElementChild); shares.replaceChildren(shares.firstElementChild);
    const weightSliders = group.skills.map((skill, i) => {
      weights[i] = skill.weight;
      return slider(skills, skill.name, { min: 0, max: 1, step: 0.05, value: skill.weight }, (value) => { weights[i] = value; showWeights(); schedule(); });
    });
    const showWeights = () => {
      const total = weights.reduce((a, b) => a + b, 0);
      weightSliders.forEach((show, i) => show(weights[i], total > 0 ? `${Math.round((100 * weights[i]) / total)} %` : "–"));
    };
    const mixSliders = group.categories.map((name, k) => slider(shares, name, { min: 0, max: 1, step: 0.01 }, (value) => {
      const rest = mix.reduce((sum, share, j) => (j === k ? sum : sum + share), 0);
      mix = mix.map((share, j) => (j === k ? value : rest > 1e-9 ? (share * (1 - value)) / rest : (1 - value) / (mix.length - 1)));
      showMix(); schedule();
    }));
    const showMix = () => mixSliders.forEach((show, k) => show(mix[k], `${(100 * mix[k]).toFixed(1)} %`));
    shares.hidden = group.categories.length < 2;
    showWeights(); showMix();
    const largest = Math.max(...group.skills.map((skill) => skill.reach[1])), C = group.start ?? 10 * largest;
    setBudget(C);
    const best = panel.answer(group, { C, weights, mix, N: NaN, stride: 10 }).N[0];
    const sizes = group.skills.flatMap((skill) => skill.sizes), first = Number.isFinite(best) ? best / 2 : Math.max(...sizes);
    logarithm("candidate", Math.min(...sizes), 1e3 * Math.max(...sizes), Number(first.toPrecision(2)), (N) => count(N).replace(/\.?0+(?=[kMBT]$)/, ""));
    update(1);
  }

  function update(thinning) {
    const began = performance.now(), C = budget(), total = weights.reduce((a, b) => a + b, 0);
    const problem = !(C > 0) ? "Give a budget above 0, such as 1e22." : !(total > 0) ? "Give at least one skill a weight above 0." : "";
    find("problem").textContent = problem;
    find("answer").hidden = Boolean(problem);
    if (problem) return;
    flops = C;
    const question = { C, weights, mix, N: parse(find("candidate").value), stride: thinning };
    const result = panel.answer(group, question);
    find("warnings").replaceChildren(...result.warnings.concat(result.candidateWarnings).map((line) => make("li", line)));
    find("price").parentElement.classList.toggle("beyond", result.candidateWarnings.length > 0);
    find("answer").classList.toggle("beyond", result.beyond);
    find("flop").textContent = inHours() ? `${power(C)} FLOP` : "";
    for (const [name, values, write] of [["N", result.N, count], ["D", result.D, count], ["ratio", result.ratio, short]]) {
      const [value, ends] = spread(values, write);
      find(name).replaceChildren(make("b", value), make("small", ends));
    }
    const price = result.excess;
    const percent = (value) => (value === Infinity ? "∞" : `${short(100 * value)} %`);
    const [above, aboveEnds] = price ? spread(price, short) : ["–", ""], [more, moreEnds] = price ? spread(result.compute, percent) : ["–", ""];
    find("price").textContent = price
      ? `${count(question.N)} parameters on ${count(C / 6 / question.N)} tokens: loss ${above} above the least (${aboveEnds}). Compute to make up for it: ${result.compute[0] === Infinity ? "no number of tokens does" : `+${more}`} (${moreEnds}).`
      : "Give a candidate above 0, such as 7B.";
    const cell = (values, write) => { const [value, ends] = spread(values, write), box = make("td", value, { className: "number" }); box.append(make("small", ends)); return box; };
    const row = (name, ...cells) => { const line = make("tr"); line.append(make("th", name, { scope: "row" }), ...cells); return line; };
    find("skills").replaceChildren(...group.skills.map((skill, i) => {
      const { N, loss, excess, candidate, unsure } = result.skills[i], alone = cell(N, count);
      if (unsure) alone.append(make("small", "weak priors decide it"));
      return row(skill.name, cell(loss, (x) => x.toPrecision(4)), cell(candidate, (x) => (Number.isFinite(x) ? x.toPrecision(4) : "–")), alone, cell(excess, short));
    }));
    draw(result, question.N);
    const took = performance.now() - began;
    section.dataset.ms = took.toFixed(1);
    stride = Math.max(1, Math.ceil((took * thinning) / 80));
  }

  // While a slider moves, a slow law answers from part of its draws; the rest follow when it rests
  function schedule() {
    cancelAnimationFrame(waiting); clearTimeout(settled);
    waiting = requestAnimationFrame(() => { update(stride); if (stride > 1) settled = setTimeout(() => update(1), 150); });
  }

  function draw(result, candidate) {
    const NS = "http://www.w3.org/2000/svg", svg = find("figure"), step = 26, width = Math.min(svg.clientWidth || 620, 736), top = 30;
    const left = width < 500 ? 112 : 150, right = width - 16, letters = width < 500 ? 13 : 20;
    const lines = [["weighted", result.N], ...group.skills.map((skill, i) => [skill.name, result.skills[i].N])];
    const ends = lines.flatMap(([, values]) => values).concat(candidate > 0 ? candidate : []).filter((x) => Number.isFinite(x) && x > 0).map(Math.log10);
    const low = Math.min(...ends) - 0.05, high = Math.max(...ends) + 0.05, x = (N) => left + ((right - left) * (Math.log10(N) - low)) / (high - low);
    const add = (tag, properties, text) => {
      const node = document.createElementNS(NS, tag);
      for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
      node.textContent = text || "";
      svg.append(node);
    };
    const height = top + step * lines.length + 30;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    if (!ends.length) return;
    if (candidate > 0) {
      add("line", { x1: x(candidate), x2: x(candidate), y1: top - 8, y2: height - 26, "stroke-dasharray": "3 4" });
      add("text", { x: Math.min(Math.max(x(candidate), left + 40), right - 40), y: top - 14, "text-anchor": "middle" }, "candidate");
    }
    lines.forEach(([name, [value, lo, hi]], i) => {
      const y = top + step * (i + 0.5);
      add("text", { x: left - 10, y: y + 4, "text-anchor": "end", ...(i ? {} : { "font-weight": 600 }) }, name.length > letters ? `${name.slice(0, letters - 1)}…` : name);
      if (Number.isFinite(lo)) add("line", { x1: x(lo), x2: x(hi), y1: y, y2: y, style: `stroke-width:${i ? 2 : 4}px` });
      if (Number.isFinite(value)) add("circle", { cx: x(value), cy: y, r: i ? 4 : 6, fill: "currentColor" });
    });
    for (const share of [0, 0.5, 1]) {
      const N = 10 ** (low + share * (high - low));
      add("text", { x: x(N), y: height - 8, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle" }, count(N));
    }
  }

  section.querySelectorAll("[data-level]").forEach((place) => { place.textContent = level; });
  const picker = find("group");
  data.groups.forEach((item, i) => picker.append(make("option", item.name, { value: i })));
  picker.parentElement.hidden = data.groups.length < 2;
  picker.addEventListener("change", () => choose(Number(picker.value)));
  find("unit").addEventListener("change", () => { find("hours").hidden = !inHours(); setBudget(flops); schedule(); });
  window.addEventListener("resize", () => update(1));
  for (const name of ["peak", "use"]) find(name).addEventListener("input", schedule);
  section.hidden = false;
  choose(0);
}

if (typeof document !== "undefined") {
  const section = document.getElementById("what-if");
  mount(section, JSON.parse(document.getElementById("what-if-data").textContent), FORMULAS);
}
