// The types of what the page uses of vendor.js.
type Signal<T> = { value: T };
export function signal<T>(value: T): Signal<T>;
export function computed<T>(of: () => T): { readonly value: T };
export function useState<T>(first: T | (() => T)): [T, (next: T | ((before: T) => T)) => void];
export function useRef<T>(first: T): { current: T };
export function useEffect(effect: () => unknown, inputs?: unknown[]): void;
export function useLayoutEffect(effect: () => unknown, inputs?: unknown[]): void;
export function render(tree: unknown, into: Element): void;
export const h: unknown;
export const htm: { bind(h: unknown): (parts: TemplateStringsArray, ...values: any[]) => unknown };
export const Fragment: unknown;
export const observeWindowRect: unknown;
export const observeWindowOffset: unknown;
export const windowScroll: unknown;
export const Virtualizer: any;
