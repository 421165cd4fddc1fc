// Keeps sessions in a function so small and so hot that V8 inlines it into its callers.
const sessions = new Map();
let id = 0;
function rememberSession(number) {
  const session = { number, basket: new Array(16).fill(number + 0.5) };
  sessions.set(number, session);
  return session;
}
function handle(number) {
  return rememberSession(number).number;
}
function tick() {
  for (let round = 0; round < 40; round += 1) handle((id += 1));
  if (sessions.size > 200_000) sessions.clear();
}
setInterval(tick, 1);
