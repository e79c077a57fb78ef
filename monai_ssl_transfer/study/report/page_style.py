"""Style of the report's page, on a screen, a telephone and paper."""

from __future__ import annotations

STYLE = """
:root{--line:#d9d9d9;--soft:#666}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1.2rem 1rem 4rem;color:#1b1b1b;
background:#fff}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0}h2{font-size:1.25rem;margin:2.4rem 0 .4rem}
h3{font-size:1rem;margin:1.5rem 0 .3rem}
p,ul{max-width:48rem}li{margin:.25rem 0}.soft,.note{color:var(--soft);font-size:.86rem}
.answer{border-left:4px solid #0072B2;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600;border-bottom:1.5px solid #555;vertical-align:bottom;white-space:normal;min-width:4.5rem}
th.name,td.name{text-align:left}tr.shown td{font-weight:650;background:#eef5fb}
nav{font-size:.9rem}nav a{margin-right:1rem}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.86rem}.key i{display:inline-block;width:.8rem;height:.8rem;
border-radius:50%;margin-right:.35rem;vertical-align:-1px}
.forest .where{font-size:.8rem;font-weight:600;margin-top:.3rem}
.row{display:grid;grid-template-columns:11rem 1fr 13rem;gap:.5rem;align-items:center;font-size:.8rem}
.row svg{width:100%;height:22px;overflow:visible;display:block}.say{font-variant-numeric:tabular-nums}
.grid{stroke:#e4e4e4}.zero{stroke:#444;stroke-width:1.5}svg text{font:11px system-ui,sans-serif;fill:#444}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1rem}
figure{margin:0}figcaption{font-size:.82rem;font-weight:600}figure svg{width:100%;height:auto;display:block}
.short{background:#f2f7fb;border:1px solid #bcd7ea;border-radius:6px;padding:.5rem 1rem .7rem;margin:1rem 0}
.short h2{margin:.1rem 0 .3rem}.short .advice{font-size:1.3rem;font-weight:650;margin:.5rem 0 .2rem;max-width:60rem}
.short .family{font-size:.8rem;color:var(--soft);margin:.9rem 0 -.5rem}.short p{margin:.2rem 0;max-width:60rem}
.short ul{margin:.2rem 0;padding-left:1.2rem;max-width:60rem;font-size:.92rem}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.4rem .8rem;margin:.6rem 0}
.small figcaption{font-weight:400}.mark{width:.7rem;height:.7rem;margin-right:.3rem;display:inline-block}
.curves .plane{border:1px solid var(--line)}
.looked{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,14rem));gap:.6rem}
.looked img{width:100%;display:block;background:#000}.looked figcaption{font-weight:400}
.case{margin:.7rem 0 .2rem;overflow-wrap:anywhere}.contour{padding:0 .5em;border-radius:3px;color:#000}
p,li,h1,h3,figcaption,.where,.who{overflow-wrap:anywhere}
@media(max-width:640px){.looked{grid-template-columns:repeat(3,1fr)}
.row{grid-template-columns:6.6rem 1fr;gap:.1rem .4rem}.row .say{grid-column:2;color:var(--soft);
margin-bottom:.25rem}body{font-size:15px}}
@media print{@page{margin:13mm}@page wide{size:A4 landscape;margin:10mm}#comparisons{page:wide}
body{max-width:none;padding:0;font-size:10pt}.scroll{overflow:visible}nav{display:none}
table{font-size:6.6pt;width:100%}th,td{padding:.1rem .25rem;white-space:normal;min-width:0}th{min-width:0}
td:not(.name){white-space:nowrap}h2,h3,.where,.case{break-after:avoid}tr,.row,figure{break-inside:avoid}
tr.shown td,.forest *,.key i,.short,.contour,svg *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.curves{grid-template-columns:repeat(3,1fr)}.small{grid-template-columns:repeat(6,1fr)}.looked{grid-template-columns:repeat(5,1fr)}
.short .advice{font-size:11.5pt}.row{grid-template-columns:9rem 1fr 11rem;font-size:7.5pt}}
"""
