"""How the page looks, on a screen, a phone and paper."""

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:1.5rem 1.2rem 3rem;max-width:1080px;
  color:#1d2125;background:#fff}
h1{font-size:1.6rem;margin:0 0 .2rem}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-bottom:2px solid #d8dde2;padding-bottom:.2rem}
h3{font-size:1rem;margin:0}
p{margin:.3rem 0}
.quiet{color:#57606a}
code{font:13px ui-monospace,monospace;background:#f0f2f4;padding:0 .3em;border-radius:3px}
.verdict{margin:1rem 0;padding:.7rem 1rem;border-left:6px solid;background:#f6f8fa;font-size:1.05rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #e3e7ea;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}
a{color:inherit}
.tag{display:inline-block;font-size:12px;font-weight:600;color:#fff;border-radius:3px;padding:0 .5em;
  margin-right:.5em}
section.check{border:1px solid #d8dde2;border-radius:6px;padding:.8rem 1rem;margin:.8rem 0}
.remedy{background:#eef6ee;border-radius:4px;padding:.35rem .6rem;margin:.5rem 0}
ul{margin:.4rem 0;padding-left:1.2rem}
li,summary{overflow-wrap:anywhere}
summary{cursor:pointer;color:#3a5a78}
.shown{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:1.2rem 1.6rem;
  margin:.8rem 0}
.finding{break-inside:avoid}
.finding>p{overflow-wrap:anywhere;font-size:14px}
.pair{display:flex;gap:.4rem;flex-wrap:wrap}
figure{margin:0;flex:1 1 45%;max-width:220px}
figure img{width:100%;display:block;background:#000}
figcaption{font-size:12px;color:#57606a;overflow-wrap:anywhere}
@media print{body{padding:0;max-width:none;font-size:11pt}section.check{border:0;border-top:1px solid #999;
  border-radius:0;padding:.5rem 0}
  .shown{grid-template-columns:1fr 1fr}summary{list-style:none}*{-webkit-print-color-adjust:exact;
  print-color-adjust:exact}}
"""
