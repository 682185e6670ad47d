// The five store operations, on a `Map`.
export function load (sessions, id) {
  const stored = sessions.get(id)
  return stored?.expires > Date.now() ? stored : undefined
}

// Returns the obstacle that a write met; nothing if it is done.
export function perform (sessions, { id, operation: { tag, val }, ifUnchanged }, seen) {
  const stored = load(sessions, id)
  if (tag === 'create' && stored) return { tag: 'taken' }
  if (!stored && (ifUnchanged || ['touch', 'delete', 'load'].includes(tag))) return { tag: 'missing' }
  const isOther = ifUnchanged && stored.data !== seen.data
  if (tag === 'load' || isOther) return { tag: 'conflict', val: stored }
  if (tag === 'delete') sessions.delete(id)
  else sessions.set(id, tag === 'touch' ? { ...stored, expires: val } : val)
}
