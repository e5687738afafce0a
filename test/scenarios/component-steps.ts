/** What an external component can do in a dialogue (XEP-0114 1.6); what clients can do, it can too. */
import type { Client } from '../helpers/client.ts'
import { ComponentClient } from '../helpers/component-client.ts'
import type { Stage } from './stage.ts'

type Action = (stage: Stage, client: Client, args: readonly string[], payload: string) => Promise<void> | void

const asComponent = (client: Client): ComponentClient =>
  client instanceof ComponentClient ? client : client.fail('is no component: `connects as a component` first')

/** Steps of the form `NAME words`, after the name. */
export const COMPONENT_STEPS: readonly (readonly [RegExp, Action])[] = [
  [/^opens the stream of (\S+)$/, (_, c, [domain]) => asComponent(c).openStream(domain)],
  [/^asks for the stream of (\S+)$/, (_, c, [domain]) => asComponent(c).sendHeader(domain)],
  [/^proves its secret$/, (_, c) => asComponent(c).sendHandshake()],
  [/^proves a wrong secret$/, (_, c) => asComponent(c).sendHandshake('wrong')],
]
