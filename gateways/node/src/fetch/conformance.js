// The test suite for stores of `edge-session/fetch`, including your own: the promises of the Rust
// library's `store::conformance`.
import assert from 'node:assert/strict'

const LATER = 4_102_444_800_000 // The year 2100.
const EVEN_LATER = LATER + 60_000
const AT_ONCE = 64

// Some databases check that a session's text is JSON.
const [A, B, C] = ['{"is":"a"}', '{"is":"b"}', '{"is":"c"}']

const key = id => `conformance-${id}`
const content = (data, expires = LATER) => ({ data, expires })

/** What every store returns: some round an expiry up to a second, or count from their own clock. */
const plain = stored => typeof stored === 'object' && stored !== null
  ? { data: stored.data, expires: stored.expires && Math.round(stored.expires / 10_000) * 10_000 }
  : stored ?? undefined

/**
 * Checks every promise of a store, and rejects with the one that is broken. Sessions whose identifiers
 * begin with `conformance-`, in upper or lower case, are overwritten and deleted.
 */
export async function check (store) {
  const load = async id => plain(await store.load(id))
  const replace = async (id, content, expected) => plain(await store.replace(id, content, expected))
  const remove = async (id, expected) => plain(await store.delete(id, expected))
  const having = async (id, data) => {
    await store.replace(key(id), content(data))
    return key(id)
  }
  const without = async id => {
    await store.delete(key(id))
    return key(id)
  }
  const promise = async (what, actual, expected) => assert.deepEqual(await actual, expected, what)

  let id = await without('create')
  await promise('what was never stored is missing', load(id), undefined)
  await promise('creating stores', store.create(id, content(A)), true)
  await promise('what was stored is found', load(id), content(A))
  await promise('creating never overwrites', store.create(id, content(B)), false)
  await promise('after a refused creation the old text is there', load(id), content(A))

  id = await without('replace')
  await promise('replacing creates', replace(id, content(A)), true)
  await promise('replacing overwrites', replace(id, content(B)), true)
  await promise('the last text is found', load(id), content(B))
  await promise('so does it with another expiry', replace(id, content(C, EVEN_LATER)), true)
  await promise('which is found, too', load(id), content(C, EVEN_LATER))
  await without('create')
  await without('replace')

  id = await having('expect', A)
  await promise('the expected text is replaced', replace(id, content(B), A), true)
  await promise('another text is a conflict', replace(id, content(C), A), content(B))
  await promise('after a conflict nothing has changed', load(id), content(B))
  await promise('the same text can be stored again', replace(id, content(B), B), true)
  await promise('so can another, with another expiry', replace(id, content(C, EVEN_LATER), B), true)
  await promise('which is found, too', load(id), content(C, EVEN_LATER))
  await without('expect')
  await promise('a missing session is not created', replace(id, content(C), B), false)
  await promise('nor is it there afterwards', load(id), undefined)

  id = await having('touch', A)
  await promise('touching moves the expiry', store.touch(id, EVEN_LATER), true)
  await promise('and leaves the text', load(id), content(A, EVEN_LATER))
  await promise('touching twice is fine', store.touch(id, EVEN_LATER), true)
  await without('touch')
  await promise('touching never creates', store.touch(id, LATER), false)
  await promise('nor is it there afterwards', load(id), undefined)

  id = await having('delete', A)
  await promise('another text is not deleted', remove(id, B), content(A))
  await promise('the expected one is', remove(id, A), true)
  await promise('what was deleted is missing', load(id), undefined)
  await promise('deleting nothing says so', remove(id), false)
  await promise('also when something was expected', remove(id, A), false)
  await having('delete', A)
  await promise('without a condition it is deleted', remove(id), true)
  await promise('and is missing then', load(id), undefined)

  id = await having('expired', A)
  await promise('a session can be made to end', store.touch(id, Date.now() - 1000), true)
  await promise('an expired session is not loaded', load(id), undefined)
  await promise('nor touched', store.touch(id, LATER), false)
  await promise('nor replaced', replace(id, content(B), A), false)
  await promise('nor deleted', remove(id, A), false)
  await promise('also without a condition', remove(id), false)
  await promise('nor brought back by any of these', load(id), undefined)
  await promise('its identifier is free', store.create(id, content(A)), true)
  await promise('and is in use then', store.create(id, content(B)), false)
  await promise('it can end again', store.touch(id, Date.now() - 1000), true)
  await promise('without a condition it is replaced', replace(id, content(B)), true)
  await promise('and is there then', load(id), content(B))
  await without('expired')
  const past = Date.now() - 1000
  await promise('a session may be over when it is created', store.create(id, content(A, past)), true)
  await promise('and is not loaded', load(id), undefined)
  await promise('or when it is replaced', replace(id, content(A, past)), true)
  await promise('and is not loaded then', load(id), undefined)
  await having('expired', A)
  await promise('also if a text is expected', replace(id, content(B, past), A), true)
  await promise('and is not loaded after that', load(id), undefined)

  const long = `{"long":"${'x'.repeat((1 << 20) - 20)}"}`
  for (const text of ['{}', ' { } ', '{"a":"\\u0000"}', '{"a":"\\ud800 é \u{10ffff}"}', '{"\\"\'$.\\\\%s":1.0,"b":1,"b":2}', long]) {
    id = await having('text', text)
    await promise('a text comes back byte for byte', load(id), content(text))
    await promise('and is recognised', replace(id, content(A), text), true)
  }
  for (const odd of ['$where', 'a.b', 'é', "'; --", '../x', '%s']) {
    id = await having(odd, A)
    await promise('any text can be an identifier', load(id), content(A))
    await promise('and be deleted', remove(id), true)
  }
  await without('text')

  const similar = ['conformance-e', 'conformance-E', 'conformance-e ', 'CONFORMANCE-E']
  for (const id of similar) await store.delete(id)
  for (const [n, id] of similar.entries()) {
    await promise('each identifier is another session', store.create(id, content(`{"is":${n}}`)), true)
  }
  for (const [n, id] of similar.entries()) {
    await promise('with its own text', load(id), content(`{"is":${n}}`))
    await promise('and its own end', remove(id), true)
  }

  /** Returns the numbers of the concurrent operations that are done. */
  const atOnce = async operation => {
    const all = await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => operation(n)))
    return [...all.keys()].filter(n => all[n] === true)
  }
  // In the last race, `at` is the operation that differs: the first, one in between, or the last.
  for (let at = 0; at < AT_ONCE; at += 9) {
    id = await having('race', A)
    let won = await atOnce(n => replace(id, content(`{"by":${n}}`), A))
    assert.equal(won.length, 1, 'of many that expect the same text, exactly one replaces it')
    await promise("it is that one's", load(id), content(`{"by":${won[0]}}`))

    await without('race')
    if (at % 2) {
      // The place of a session that has expired is free, too.
      await having('race', A)
      await promise('a session can be made to end', store.touch(id, Date.now() - 1000), true)
    }
    won = await atOnce(n => store.create(id, content(`{"by":${n}}`)))
    assert.equal(won.length, 1, 'of many that create a session, exactly one does')
    await promise("it is that one's", load(id), content(`{"by":${won[0]}}`))

    await having('race', A)
    won = await atOnce(n => n % 2 ? replace(id, content(B), A) : remove(id, A))
    assert.equal(won.length, 1, 'of many that delete or replace the same text, exactly one does')
    await promise('what that one did is there', load(id), won[0] % 2 ? content(B) : undefined)

    await having('race', A)
    const done = await atOnce(n => n === at ? replace(id, content(B), A) : store.touch(id, LATER))
    assert.equal(done.length, AT_ONCE, 'touches and a change do not hinder each other')
    await promise('a touch does not undo a change', load(id), content(B))
    const ended = await atOnce(n => n === at ? remove(id) : store.touch(id, LATER))
    assert.ok(ended.includes(at), 'touches do not hinder a deletion')
    await promise('a touch does not undo a deletion', load(id), undefined)
  }
  await without('race')
}
