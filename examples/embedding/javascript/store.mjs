// The five store operations, on a `Map`.
export function perform (sessions, { tag, val }, id, known) {
  const found = sessions.get(id)?.expires > Date.now() ? sessions.get(id) : undefined
  const isKnown = found?.data === (known.current ?? known.loaded)?.data
  const onlyKnown = val === true || val?.onlyKnown
  if (tag === 'load') known.loaded = found
  if (tag === 'load') return { tag: found ? 'found' : 'missing' }
  if (tag === 'create' && found) return { tag: 'taken' }
  if (!found && (onlyKnown || tag === 'touch' || tag === 'delete')) return { tag: 'missing' }
  if (onlyKnown && !isKnown) known.current = found
  if (onlyKnown && !isKnown) return { tag: 'conflict' }
  if (tag === 'delete') sessions.delete(id)
  else sessions.set(id, tag === 'touch' ? { ...found, expires: val } : val.content ?? val)
  return { tag: 'done' }
}
