// @ts-check
/** Starts Converse.js with the settings of the server that this page comes from. */

const LIBRARY = 'script[src$="/converse.min.js"]'

/** @param {string} text */
function tell(text) {
  const notice = document.getElementById('notice')
  if (notice === null) return
  notice.textContent = text
  notice.hidden = false
}

/** Takes the place of an element that would load pictures from elsewhere. */
class Nothing extends HTMLElement {}

async function start() {
  const response = await fetch('client.json')
  if (!response.ok) throw new Error(`client.json: ${response.status}`)
  const { websocketPath, settings } = await response.json()
  if (websocketPath === undefined)
    return tell('The server has no WebSocket endpoint: its module "websocket" is off.')
  const library = document.querySelector(LIBRARY)
  if (!(library instanceof HTMLScriptElement)) throw new Error('Converse.js is missing')
  customElements.define('converse-footer', Nothing)
  const { default: converse } = await import(library.src)
  const url = new URL(websocketPath, location.href)
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
  await converse.initialize({
    ...settings,
    websocket_url: url.href,
    // Pictures and sounds from our own server only; the page may load no others.
    render_media: [location.hostname],
    assets_path: new URL('.', library.src).pathname,
  })
}

start().catch((error) => {
  console.error(error)
  tell('The chat could not be started. Please load the page again.')
})
