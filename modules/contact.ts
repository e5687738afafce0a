/** XEP-0157 Contact Addresses for XMPP Services 1.1.1: whom to ask, as a form (XEP-0128 1.0.1) in the disco information of the server. */
import { c, defineModule } from '../server/module.ts'
import { type Field, resultElement } from '../server/xmpp/forms.ts'

const FORM_TYPE = 'http://jabber.org/network/serverinfo'
const ROLES = ['abuse', 'admin', 'feedback', 'sales', 'security', 'status', 'support'] as const

const addresses = (role: string) =>
  c
    .array(c.url()) // §3: values are URIs
    .default([])
    .describe(`URIs (mailto:, xmpp:, https:) for ${role}.`)

const config = c.object({
  abuse: addresses('reports of abuse'),
  admin: addresses('the administrators'),
  feedback: addresses('feedback'),
  sales: addresses('sales'),
  security: addresses('security concerns'),
  status: addresses('the status of the service'),
  support: addresses('support'),
})

export default defineModule({
  name: 'contact',
  summary: 'Publishes contact addresses of the operators',
  specs: [
    { xep: 157, version: '1.1.1', status: 'complete' },
    { xep: 128, version: '1.0.1', status: 'complete' },
  ],
  config,
  setup(ctx, options) {
    const given = ROLES.filter((role) => options[role].length > 0)
    if (given.length === 0) return
    const fields: Field[] = given.map((role) => ({
      var: `${role}-addresses`,
      type: 'list-multi',
      label: `Addresses for ${role}`,
      options: [],
    }))
    const values = Object.fromEntries(given.map((role) => [`${role}-addresses`, options[role]]))
    ctx.disco.form('host', () => resultElement(fields, values, { formType: FORM_TYPE }))
  },
})
