// The test suite for stores of `edge-session/fetch`, including your own: the promises of the Rust
// library's `store::conformance`.
import assert from 'node:assert/strict'

const LATER = 4_102_444_800_000 // The year 2100.
const AT_ONCE = 64

// Some databases check that a session's text is JSON.
const [A, B, C] = ['{"is":"a"}', '{"is":"b"}', '{"is":"c"}']

const key = id => `conformance-${id}`
const content = data => ({ data, expires: LATER })

/** What every store returns: some round an expiry up to a second, or count from their own clock. */
const plain = stored => typeof stored === 'object' && stored !== null
  ? { data: stored.data, expires: stored.expires && Math.round(stored.expires / 10_000) * 10_000 }
  : stored ?? undefined

/**
 * Checks every promise of a store, and rejects with the one that is broken. Sessions whose identifiers
 * begin with `conformance-` are overwritten and deleted.
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
  await without('create')
  await without('replace')

  id = await having('expect', A)
  await promise('the expected text is replaced', replace(id, content(B), A), true)
  await promise('another text is a conflict', replace(id, content(C), A), content(B))
  await promise('after a conflict nothing has changed', load(id), content(B))
  await promise('the same text can be stored again', replace(id, content(B), B), true)
  await without('expect')
  await promise('a missing session is not created', replace(id, content(C), B), false)
  await promise('nor is it there afterwards', load(id), undefined)

  id = await having('touch', A)
  const evenLater = LATER + 60_000
  await promise('touching moves the expiry', store.touch(id, evenLater), true)
  await promise('and leaves the text', load(id), { data: A, expires: evenLater })
  await promise('touching twice is fine', store.touch(id, evenLater), true)
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
  await promise('nor brought back by any of these', load(id), undefined)
  await promise('its identifier is free', store.create(id, content(A)), true)
  await promise('and is in use then', store.create(id, content(B)), false)
  await without('expired')

  const long = `{"long":"${'x'.repeat((1 << 20) - 20)}"}`
  for (const text of ['{}', ' { } ', '{"a":"\\u0000"}', '{"a":"\\ud800 é \u{10ffff}"}', '{"\\"\'$.\\\\":1.0,"b":1,"b":2}', long]) {
    id = await having('text', text)
    await promise('a text comes back byte for byte', load(id), content(text))
    await promise('and is recognised', replace(id, content(A), text), true)
  }
  for (const odd of ['$where', 'a.b', 'é', "'; --", '../x']) {
    id = await having(odd, A)
    await promise('any text can be an identifier', load(id), content(A))
    await promise('and be deleted', remove(id), true)
  }
  await without('text')

  id = await having('race', A)
  for (let round = 1; round <= 8; round++) {
    const { data } = await load(id)
    const all = Array.from({ length: AT_ONCE }, (_, n) => replace(id, content(`{"by":"${round}-${n}"}`), data))
    const won = (await Promise.all(all)).filter(it => it === true)
    assert.equal(won.length, 1, 'of many that expect the same text, exactly one replaces it')
  }
  await without('race')
}
