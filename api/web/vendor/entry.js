// What the page uses of others' code; docs/vendor_bundle.py bundles it.
export { Fragment, h, render } from "preact";
export { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
export { default as htm } from "htm";
export { computed, signal } from "@preact/signals";
export { observeWindowOffset, observeWindowRect, Virtualizer, windowScroll } from "@tanstack/virtual-core";
