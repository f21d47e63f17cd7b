"""Names of images that a spreadsheet would run as formulas, and how CSV has them."""

DISARMED = {
    "=1+1.png": "'=1+1.png",
    "+a": "'+a",
    "-a": "'-a",
    "@a": "'@a",
    "a;=1+1.png": "a;'=1+1.png",
    "a;b;@c": "a;b;'@c",
    "＝1": "'＝1",
    "a\n=1": "a\n'=1",
    "\t=1": "'\t'=1",
    "a;＋1": "a;'＋1",
}
HARMLESS = ['a "quoted", name', "a;b", "line\nbreak", "100%d%s", "ünï", "\\", "a=1"]
