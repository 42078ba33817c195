"""The page's style sheet. Colours are variables with a light and a dark value; figures use them.

The palette is Okabe and Ito's (told apart with any common colour blindness), darkened on light
ground and lightened on dark ground for contrast.
"""

STYLE = """
:root{color-scheme:light dark;
--paper:#fdfcfa;--raised:#f5f2ec;--ink:#1d1f23;--soft:#646a73;--rule:#dcd7cc;--warn:#8a4b00;
--warn-paper:#fdf3e1;--edge:#1d1f2366;--good:#0b6e4f;--bad:#a8321f;
--c0:#0b62a4;--c1:#c2570c;--c2:#0b7a5b;--c3:#a63d7f;--c4:#8a6d00;--c5:#3a8fc4;--c6:#5b4aa8;
--c7:#555b63;
--serif:Charter,'Bitstream Charter','Sitka Text',Cambria,'Liberation Serif',Georgia,serif;
--sans:system-ui,-apple-system,'Segoe UI',Roboto,
'Liberation Sans',Arial,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace}
@media (prefers-color-scheme:dark){:root{
--paper:#15171b;--raised:#1e2127;--ink:#e6e4df;--soft:#9aa1ab;--rule:#343942;--warn:#f0b35e;
--warn-paper:#2b2317;--edge:#000000d0;--good:#5fd0a5;--bad:#f08a75;
--c0:#6db3ea;--c1:#f0935a;--c2:#4fc79f;--c3:#e08fc2;--c4:#dbbb4a;--c5:#a3d4f2;--c6:#ab9df0;
--c7:#b0b6bf}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--serif)}
main,header,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:44px}
h1{font-size:clamp(1.6rem,1.2rem + 2vw,2.4rem);line-height:1.15;margin:0 0 6px;font-weight:600;
overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.4rem;margin:56px 0 14px;padding-top:14px;border-top:1px solid var(--rule);
font-weight:600}
h3{font:600 .95rem/1.35 var(--sans);margin:28px 0 8px;overflow-wrap:anywhere}
p{margin:8px 0;max-width:70ch;overflow-wrap:anywhere}
.quiet{color:var(--soft);font:.86rem/1.5 var(--sans)}
.kicker{font:600 .74rem/1 var(--sans);letter-spacing:.09em;text-transform:uppercase;
color:var(--soft);margin:0 0 12px}
nav{font:.86rem/1 var(--sans);display:flex;flex-wrap:wrap;gap:4px 18px;margin-top:18px}
nav a{color:var(--c0);text-decoration:none;padding:6px 0}
nav a:hover,nav a:focus{text-decoration:underline}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:22px 24px;
margin:18px 0}
.facts dt{font:.8rem/1.3 var(--sans);color:var(--soft)}
.facts dd{margin:3px 0 0;font:600 1.55rem/1.15 var(--sans);font-variant-numeric:tabular-nums;
letter-spacing:-.02em}
.facts dd.note{font:.78rem/1.4 var(--sans);color:var(--soft);letter-spacing:0}
.notices{background:var(--warn-paper);border-left:3px solid var(--warn);padding:10px 16px;
margin:20px 0;font:.88rem/1.5 var(--sans)}
.notices strong{color:var(--warn)}
.notices ul{margin:4px 0;padding-left:18px}.notices li{overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:12px 0;-webkit-overflow-scrolling:touch;background:
linear-gradient(to right,var(--paper) 40%,transparent) left/44px 100% no-repeat local,
linear-gradient(to left,var(--paper) 40%,transparent) right/44px 100% no-repeat local,
linear-gradient(to right,var(--edge),transparent) left/18px 100% no-repeat scroll,
linear-gradient(to left,var(--edge),transparent) right/18px 100% no-repeat scroll}
.scroll::-webkit-scrollbar{height:9px}.scroll::-webkit-scrollbar-thumb{background:var(--rule);
border-radius:5px}
.cue{display:none;color:var(--soft);font:.78rem/1.4 var(--sans);margin:12px 0 -8px}
.cue.wide{display:block}
table{border-collapse:collapse;font:.86rem/1.4 var(--sans);font-variant-numeric:tabular-nums;
min-width:min(100%,420px)}
th,td{padding:6px 14px 6px 0;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--rule);vertical-align:baseline}
th{color:var(--soft);font-weight:500;border-bottom-color:var(--soft)}
th.t,td.t{text-align:left}
td.t:first-child,th.t:first-child{position:sticky;left:0;min-width:8.5em;background:var(--paper);
max-width:min(46vw,420px);white-space:normal;overflow-wrap:anywhere}
td.wide{white-space:normal;overflow-wrap:anywhere;min-width:150px}
tr.strong td{font-weight:650;background:color-mix(in srgb,var(--raised) 65%,transparent)}
tr.strong td.t:first-child{
background:var(--raised)}
details{margin:10px 0}
summary{cursor:pointer;font:.88rem/1.5 var(--sans);color:var(--c0);padding:4px 0;
overflow-wrap:anywhere}
summary:hover{text-decoration:underline}
pre{font:.8rem/1.5 var(--mono);background:var(--raised);padding:12px 14px;margin:8px 0;
overflow-x:auto;border-radius:4px;max-height:640px}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));
gap:8px 28px}
figure{margin:14px 0;min-width:0}
figcaption{font:600 .95rem/1.35 var(--sans);margin-bottom:6px;overflow-wrap:anywhere}
figcaption small{font-weight:400;color:var(--soft);font-size:.82rem}
svg.chart{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font:10.5px var(--sans);font-variant-numeric:tabular-nums}
.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1}
.curve polyline{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}
.curve.dashed polyline{stroke-dasharray:5 3}
.curve circle{fill:currentColor}.curve.hollow circle{fill:var(--paper);stroke:currentColor;
stroke-width:1.4}.curve .error{stroke:currentColor;stroke-width:1.6;opacity:.6}
svg text.tag{fill:currentColor;font-size:10px;paint-order:stroke;stroke:var(--paper);
stroke-width:3px}
.bar rect{fill:currentColor;opacity:.75}.bar.hollow rect{fill:none;stroke:currentColor;
stroke-width:1.4;stroke-dasharray:3 2;opacity:1}
.bar .whisker{stroke:var(--ink);stroke-width:1.6}.bar .axis{stroke:var(--soft)}
.dotplot.bars .v small{font-size:.78rem}
.gap{stroke:var(--bad);stroke-width:1.6;fill:none}
.s0{color:var(--c0)}.s1{color:var(--c1)}.s2{color:var(--c2)}.s3{color:var(--c3)}.s4{
color:var(--c4)}.s5{color:var(--c5)}.s6{color:var(--c6)}.s7{color:var(--c7)}
.legend{font:.8rem/1.4 var(--sans);display:flex;flex-wrap:wrap;gap:2px 14px;margin:4px 0 0;
padding:0;list-style:none;color:var(--soft)}
.legend li{overflow-wrap:anywhere;min-width:0}
.legend i{display:inline-block;width:18px;border-top:2.5px solid currentColor;
vertical-align:middle;margin-right:6px}
.legend i.dashed{border-top-style:dashed}
.legend i.tick{width:0;height:13px;border-top:0;border-left:2px solid var(--soft);
margin:0 9px 0 3px}
.legend i.dot{width:9px;height:9px;border:0;border-radius:50%;background:currentColor}
.pair{display:flex;flex-wrap:wrap;gap:4px 48px;align-items:flex-start}
.pair figure{flex:1 1 440px;min-width:min(100%,280px)}
.pair>div{flex:0 1 auto;max-width:100%;min-width:0}
.dotplot{display:grid;grid-template-columns:minmax(90px,max-content) minmax(0,1fr) max-content;
gap:1px 14px;align-items:center;font:.86rem/1.3 var(--sans);font-variant-numeric:tabular-nums;
max-width:860px}
.dotplot .l{overflow-wrap:anywhere;max-width:min(34vw,260px)}
.dotplot .v{text-align:right;color:var(--soft)}
.dotplot .strong{font-weight:650;color:var(--ink);margin-top:10px}
svg.dots{width:100%;display:block;overflow:visible}
.mark line{stroke:currentColor;stroke-width:2.2;opacity:.55}.mark circle{fill:currentColor}
.baseline{stroke:var(--soft);stroke-width:2}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));
gap:16px;margin:8px 0}
.sample{border:1px solid var(--rule);border-radius:6px;padding:12px 14px;min-width:0;
font:.84rem/1.45 var(--sans)}
.sample .from{color:var(--soft);overflow-wrap:anywhere;margin-bottom:6px}
.sample dl{margin:0;display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 10px}
.sample dt{color:var(--soft)}
.sample dd{margin:0;font:.8rem/1.5 var(--mono);white-space:pre-wrap;overflow-wrap:anywhere;
max-height:12em;overflow-y:auto}
.verdict{font-weight:650}.right{color:var(--good)}.wrong{color:var(--bad)}
.compared{display:grid;gap:18px;margin:8px 0}
.compared article{border:1px solid var(--rule);border-radius:6px;padding:12px 16px;min-width:0}
.compared .from{font:.84rem/1.45 var(--sans);color:var(--soft);overflow-wrap:anywhere}
.compared .from b{color:var(--ink)}
.compared .two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,280px),1fr));
gap:6px 26px}
.compared h4{font:600 .78rem/1.3 var(--sans);margin:10px 0 2px;padding-left:9px;
border-left:3px solid currentColor}
.compared h4.ref{color:var(--soft)}
.compared p{margin:2px 0 4px;overflow-wrap:anywhere;white-space:pre-wrap}
.compared .note{font:.78rem/1.45 var(--sans);color:var(--soft)}
mark{background:none;color:inherit;border-radius:2px}
mark.invented{background:color-mix(in srgb,var(--bad) 22%,transparent);
border-bottom:2px solid var(--bad)}
mark.missed{border-bottom:2px dashed var(--warn)}
mark.known{border-bottom:1px solid var(--rule)}
.keys{font:.82rem/1.6 var(--sans);color:var(--soft)}
table.matrix td{text-align:center;padding:6px 10px}table.matrix td.t{text-align:left;padding-left:0}
table.matrix th{text-align:center;white-space:normal;min-width:5.5em;overflow-wrap:anywhere}
table.matrix th.t{text-align:left}
table.matrix td small{display:block;opacity:.85;font-size:.76rem}
td.up1{background:color-mix(in srgb,var(--c0) 10%,transparent)}
td.up2{background:color-mix(in srgb,var(--c0) 22%,transparent)}
td.up3{background:color-mix(in srgb,var(--c0) 36%,transparent)}
td.down1{background:color-mix(in srgb,var(--c1) 10%,transparent)}
td.down2{background:color-mix(in srgb,var(--c1) 22%,transparent)}
td.down3{background:color-mix(in srgb,var(--c1) 36%,transparent)}
footer{margin-top:64px;padding-top:14px;padding-bottom:40px;color:var(--soft);
font:.8rem/1.5 var(--sans)}
@media (max-width:560px){.cue{display:block}
body{font-size:15px}main,header,footer{padding-left:14px;
padding-right:14px}header{padding-top:26px}h2{margin-top:40px}
.facts{grid-template-columns:repeat(2,minmax(0,1fr))}.facts dd{font-size:1.25rem}th,td{
padding-right:12px}.dotplot{gap:1px 10px}}
@media print{nav,.cue,.cue.wide{display:none}.scroll{overflow:visible}pre{max-height:none}}
"""
