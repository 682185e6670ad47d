// The component's core modules, embedded in the JavaScript so that a bundle needs no other files.
import { texts } from '../generated/modules.js'

let compiled

/** Compiles the modules once, on first use. */
export function modules () {
  compiled ??= Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, new WebAssembly.Module(bytes(text))]))
  return compiled
}

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
