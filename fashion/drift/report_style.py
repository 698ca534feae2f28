"""The style sheet and the script of a drift report. Knows nothing of what the report says."""

# Each Evidently page brings 4 MB of scripts: compressed they are a quarter, and are unpacked when a reader opens them.
UNPACK = """
for (const drawing of document.querySelectorAll('details:has(iframe)')) drawing.addEventListener('toggle', async () => {
  const packed = drawing.querySelector('script'), frame = drawing.querySelector('iframe');
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), each => each.charCodeAt(0));
  packed.remove();
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  frame.srcdoc = await new Response(stream).text();
});
"""

TABLE = "<table tabindex='0'>"
"""The keyboard can scroll a table that is wider than a phone."""

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2430, #e6e9ee); --dim: light-dark(#5a6472, #9aa4b2);
  --line: light-dark(#dfe3e8, #343b46); --paper: light-dark(#fff, #14181f); --before: light-dark(#8b98a9, #8592a3);
  --now: #e07b2f; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 20px 64px; }
header { border-left: 8px solid var(--dim); padding: 4px 0 4px 20px; }
header.good { border-color: #2e8b57; } header.warn { border-color: #d99a1c; } header.bad { border-color: #c8402f; }
header .of { margin: 4px 0 0; }
h1 { font-size: 34px; line-height: 1.15; margin: 0; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 16px;
  margin: 20px 0; } .answers div { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  min-width: 0; }
.answers h2 { margin: 0; padding: 0; border: 0; font-size: 14px; font-weight: 400; color: var(--dim); }
.answers b { display: block; font-size: 20px; line-height: 1.3; margin-top: 4px; } .answers p { margin: 8px 0 0; }
.answers b.bad { color: light-dark(#b23a22, #ff8d70); } .answers b.good { color: light-dark(#1f6f43, #6fd39d); }
code { display: block; margin-top: 8px; padding: 8px 10px; border-radius: 6px; background: var(--line);
  font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; user-select: all; }
p code { display: inline; padding: 1px 4px; }
h2 { font-size: 21px; margin: 40px 0 10px; border-top: 1px solid var(--line); padding-top: 20px; }
.of, .small, .remark { color: var(--dim); } .small { font-size: 14px; } .remark { border-left: 3px solid #d99a1c;
  padding-left: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; } th, td { text-align: left; padding: 6px 12px 6px 0;
  border-bottom: 1px solid var(--line); font-weight: 400; } tr:first-child th { color: var(--dim); font-size: 14px; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .hit { color: light-dark(#b23a22, #ff8d70); }
td.hit { font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 16px; margin: 0 0 20px; }
dl div { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; } dt { color: var(--dim);
  font-size: 14px; } dd { margin: 0; font-size: 24px; } dd small { display: block; font-size: 13px; color: var(--dim); }
.unsure dd { color: var(--dim); text-decoration: line-through; } .unsure small { display: inline-block !important;
  text-decoration: none; }
.meter { display: block; width: min(160px, 20vw); height: 8px; background: var(--line); border-radius: 4px;
  position: relative; }
.meter span { display: block; height: 8px; border-radius: 4px; background: var(--before); }
.meter .over { background: #c8402f; } .meter::after { content: ''; position: absolute; left: 50%; top: -3px;
  height: 14px; border-left: 2px solid var(--ink); }
.wide { overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 20px; }
figure { margin: 0; } figcaption { font-size: 13px; color: var(--dim); } figcaption b { display: block;
  font-size: 15px; color: var(--ink); } figcaption.hit b { color: light-dark(#b23a22, #ff8d70); }
svg { width: 100%; } svg text { font-size: 10px; fill: var(--dim); } .before { fill: var(--before); }
.now { fill: var(--now); fill-opacity: .25; stroke: var(--now); stroke-width: 1.5; } rect.now { fill-opacity: 1;
  stroke: none; } polygon.before { fill-opacity: .45; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 4px 0 12px;
  vertical-align: -1px; } .key.before { background: var(--before); } .key.now { background: var(--now); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 20px; }
.examples img, .examples .none { width: 80px; height: 80px; image-rendering: pixelated; border-radius: 4px;
  margin-right: 4px; vertical-align: top; } .examples .none { display: inline-flex; align-items: center;
  justify-content: center; font-size: 11px; color: var(--dim); border: 1px dashed var(--line);
  box-sizing: border-box; }
.id { font: 9px ui-monospace, monospace; overflow-wrap: anywhere; }
details { margin-top: 24px; border-top: 1px solid var(--line);
  padding-top: 16px; } summary { cursor: pointer; font-size: 18px; } iframe { width: 100%; height: 82vh;
  border: 1px solid var(--line); border-radius: 8px; background: #fff; }
@media (max-width: 600px) {
  main { padding: 14px 14px 48px; } header { padding-left: 12px; border-left-width: 6px; } h1 { font-size: 25px; }
  .of, .answers p { font-size: 14px; } .answers { gap: 10px; margin: 12px 0; } .answers div { padding: 9px 12px; }
  .answers h2 { font-size: 13px; } .answers b { font-size: 17px; margin-top: 0; } .answers p { margin-top: 2px; }
  code { margin-top: 4px; padding: 6px 8px; font-size: 12px; } h2 { margin-top: 28px; }
  table { display: block; overflow-x: auto; font-size: 14px; } th, td { padding-right: 9px; }
  dl { grid-template-columns: 1fr 1fr; gap: 10px; } dl div { padding: 9px 10px; } dd { font-size: 20px; }
}
"""
