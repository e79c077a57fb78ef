"""How the page on features looks, on a screen, a phone and paper."""

STYLE = """
:root{color-scheme:light;--line:#d9d9d9;--soft:#5b6168}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1.2rem 1rem 4rem;color:#1b1b1b;
background:#fff}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.4rem 0 .4rem}h3{font-size:1rem;margin:1.2rem 0 .3rem;overflow-wrap:anywhere}
p,ul{max-width:48rem}li{margin:.25rem 0;overflow-wrap:anywhere}.soft,.note{color:var(--soft);font-size:.88rem}
.answer{border-left:4px solid #0072B2;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.caution{border-left:4px solid #D55E00;padding:.1rem 0 .1rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{font-weight:600;border-bottom:1.5px solid #555;vertical-align:bottom;min-width:4.5rem}
th.name,td.name{text-align:left;min-width:7rem}td.name:first-child{overflow-wrap:anywhere;min-width:9rem}
nav{font-size:.9rem}nav a{margin-right:1rem}
summary{cursor:pointer;color:#3a5a78}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.86rem;margin:.4rem 0}
.key i{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;margin-right:.35rem;vertical-align:-1px}
.dots{max-width:56rem}
.row{display:grid;grid-template-columns:15rem 1fr;gap:.5rem;align-items:center;font-size:.84rem}
.row svg{width:100%;overflow:visible;display:block}
.row+.row{border-top:1px solid #f0f0f0}
.grid{stroke:#e4e4e4}.zero{stroke:#444;stroke-width:1.5}svg text{font:11px system-ui,sans-serif;fill:#333}
svg text.axis{font-weight:600}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:1rem}
figure{margin:0;break-inside:avoid}figcaption{font-size:.84rem;font-weight:600;overflow-wrap:anywhere}
svg.map,svg.heat{width:100%;height:auto;display:block}
.heats{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,34rem),1fr));gap:1.5rem}
.sheet{display:grid;grid-template-columns:repeat(var(--count),minmax(0,7rem));gap:.35rem;margin:.3rem 0 .9rem}
.sheet figcaption{font-weight:400;font-size:.72rem;color:var(--soft);line-height:1.25;margin-top:.15rem}
.sheet img{width:100%;aspect-ratio:1;object-fit:contain;background:#000;display:block;border:3px solid #000}
.sheet img.same{border-color:#009E73}.sheet img.other{border-color:#D55E00}
.sheet .asked{padding-right:.35rem;border-right:2px solid #777}
.queries{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,34rem),1fr));gap:0 2rem}
@media(max-width:640px){.row{grid-template-columns:8.4rem 1fr}body{font-size:15px}
.answer ul,.caution ul{padding-left:1.1rem}table{font-size:.78rem}th,td{padding:.22rem .35rem}
th.name,td.name{min-width:3.6rem}td.name:first-child{min-width:6rem}}
@media print{@page{margin:13mm}body{max-width:none;padding:0;font-size:10pt}nav{display:none}.scroll{overflow:visible}
table{font-size:7.5pt}h2,h3{break-after:avoid}tr,.row,.sheet{break-inside:avoid}.maps{grid-template-columns:repeat(3,1fr)}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
