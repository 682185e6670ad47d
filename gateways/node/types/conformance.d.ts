import type { Store } from './fetch.js'

/**
 * Checks every promise of a store, and rejects with the one that is broken. Sessions whose identifiers
 * begin with `conformance-` are overwritten and deleted.
 */
export function check (store: Store): Promise<void>
