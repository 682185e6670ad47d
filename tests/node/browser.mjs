// Drives the system's Chromium, headless and with an empty profile, through a list of steps.
//
//   node browser.mjs '{"javascript": true, "steps": [STEP, …]}'
//
// A STEP is one of
//   {"goto": "http://…"}   {"fill": [SELECTOR, TEXT]}   {"click": SELECTOR}   {"screenshot": FILE}
//   {"window": [WIDTH, HEIGHT, "light" or "dark"]}
// After each step, it records {url, status, text, cookies, overflow}; the last is how much wider
// the page is than the window. It prints a JSON array of these.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const TIMEOUT_MS = 20_000

function findBrowser () {
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    try {
      return execFileSync('which', [name], { encoding: 'utf8' }).trim()
    } catch {}
  }
  throw new Error('no Chromium on the PATH: run scripts/setup browser')
}

const actions = {
  goto: (page, url) => page.goto(url),
  fill: (page, [selector, text]) => page.fill(selector, text),
  // Submitting a form by a click is complete when the next page has loaded.
  click: async (page, selector) => {
    const arrived = page.waitForEvent('load')
    await page.click(selector)
    await arrived
  },
  screenshot: (page, path) => page.screenshot({ path, fullPage: true }),
  window: async (page, [width, height, colorScheme]) => {
    await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme })
  }
}

const { javascript = true, steps } = JSON.parse(process.argv[2])
const profile = mkdtempSync(join(tmpdir(), 'edge-session-browser-'))
let browser
try {
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: findBrowser(),
    javaScriptEnabled: javascript,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'
    ]
  })
  browser.setDefaultTimeout(TIMEOUT_MS)
  const page = browser.pages()[0]
  let status = null
  page.on('response', response => {
    if (response.request().isNavigationRequest()) status = response.status()
  })
  const notes = []
  for (const step of steps) {
    const [[action, argument]] = Object.entries(step)
    await actions[action](page, argument)
    notes.push({
      url: page.url(),
      status,
      text: await page.innerText('body'),
      cookies: await browser.cookies(),
      overflow: await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
    })
  }
  console.log(JSON.stringify(notes))
} finally {
  await browser?.close()
  rmSync(profile, { recursive: true, force: true })
}
