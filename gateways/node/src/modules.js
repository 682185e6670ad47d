// The component's core modules, out of the JavaScript itself: a bundle needs no file beside it.
import { texts } from '../generated/modules.js'

let compiled

/** Compiled when they are first asked for, once. */
export function modules () {
  compiled ??= Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, new WebAssembly.Module(bytes(text))]))
  return compiled
}

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
