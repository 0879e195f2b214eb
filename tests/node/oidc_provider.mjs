// Two real providers of OpenID Connect on loopback, of different issuers: `node oidc_provider.mjs REDIRECT...`.
// Whoever says a name is that one, by its own pages for development. A line of JSON says the issuers.
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const redirects = process.argv.slice(2);

async function begun() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id: 'birthmark', client_secret: 'a secret of the test', redirect_uris: redirects }],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['preferred_username', 'groups'] },
    features: { devInteractions: { enabled: true } },
    cookies: { keys: ['of the test'] },
    async findAccount(_context, id) {
      return {
        accountId: id,
        claims: async () => ({
          sub: id,
          email: `${id}@example.com`,
          email_verified: !id.startsWith('unverified'),
          preferred_username: id,
          groups: id.startsWith('op') ? ['operators'] : [],
        }),
      };
    },
  });
  server.on('request', provider.callback());
  return issuer;
}

console.log(JSON.stringify([await begun(), await begun()]));
