// npm's ws for test_websocket.py, which speaks to it over standard input and output, line by line.
//
//     node ws_peer.js codec     "read ROLE LIMIT SEED HEX": what its receiver makes of these bytes;
//                               "write ROLE OPCODE FIN HEX": a frame of its sender's
//     node ws_peer.js server    an echo server; its first line is the port
//     node ws_peer.js client URL COUNT SEED    sends so many random messages to an echo server, and
//                               says whether all came back
'use strict';
const WebSocket = require('ws');

// A generator of its own, so that a run can be repeated.
function generator(seed) {
  return (n) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % n;
  };
}

function lines(use) {
  let rest = '';
  process.stdin.on('data', (data) => {
    const parts = (rest + data).split('\n');
    rest = parts.pop();
    for (const line of parts) use(line.split(' '));
  });
}

function read(role, limit, seed, data) {
  const options = { isServer: role === 'server', maxPayload: Number(limit) };
  const receiver = new WebSocket.Receiver(options);
  const random = generator(Number(seed));
  const said = [];
  let verdict = 'OK';
  let closed = false; // it takes no more behind a close frame
  receiver.on('message', (payload, binary) => {
    said.push(`${binary ? 2 : 1},${payload.toString('hex')}`);
  });
  receiver.on('ping', (payload) => said.push(`9,${payload.toString('hex')}`));
  receiver.on('pong', (payload) => said.push(`10,${payload.toString('hex')}`));
  receiver.on('conclude', (code, reason) => {
    closed = true;
    said.push(`8,${code},${reason.toString('hex')}`);
  });
  // It stops at an error. The codes are hidden behind a symbol of its own.
  receiver.on('error', (error) => {
    const symbols = Object.getOwnPropertySymbols(error);
    const symbol = symbols.find((s) => String(s).includes('status-code'));
    if (verdict === 'OK' && symbol) verdict = String(error[symbol]);
  });
  for (let at = 0; at < data.length && verdict === 'OK' && !closed;) {
    const n = Number(seed) === 0 ? data.length : 1 + random(random(16) ? 7 : 3000);
    receiver.write(data.subarray(at, at + n));
    at += n;
  }
  setImmediate(() => console.log([verdict].concat(said).join(' ')));
}

function write(role, opcode, fin, data) {
  const options = { opcode: Number(opcode), fin: fin === '1', mask: role === 'client', rsv1: false,
    readOnly: true };
  console.log(Buffer.concat(WebSocket.Sender.frame(data, options)).toString('hex'));
}

function hex(text) {
  return text === '-' ? Buffer.alloc(0) : Buffer.from(text, 'hex');
}

function codec() {
  lines((words) => {
    if (words[0] === 'read') read(words[1], words[2], words[3], hex(words[4]));
    else write(words[1], words[2], words[3], hex(words[4]));
  });
}

function server() {
  const s = new WebSocket.Server({ host: '127.0.0.1', port: 0, maxPayload: 1 << 20 }, () => {
    console.log(s.address().port);
  });
  s.on('connection', (ws) => {
    ws.on('message', (data, binary) => ws.send(data, { binary }));
    ws.on('error', () => {});
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

function client(url, count, seed) {
  const random = generator(Number(seed));
  const ws = new WebSocket(url);
  const wanted = [];
  let sent = 0;
  let got = 0;
  function send() {
    if (sent === Number(count)) return;
    const size = [random(10), random(200), random(70000)][random(3)];
    const data = Buffer.alloc(size, 97 + random(26));
    const binary = random(2) === 1;
    wanted.push([data, binary]);
    sent += 1;
    if (random(5) === 0) ws.ping(data.subarray(0, 125));
    if (size > 3 && random(2)) { // in three fragments
      ws.send(data.subarray(0, 1), { binary, fin: false });
      ws.send(data.subarray(1, 3), { binary, fin: false });
      ws.send(data.subarray(3), { binary, fin: true });
    } else {
      ws.send(data, { binary });
    }
  }
  ws.on('open', () => { for (let i = 0; i < 10; i++) send(); });
  ws.on('message', (data, binary) => {
    const [want, wasBinary] = wanted.shift();
    if (!want.equals(data) || wasBinary !== binary) {
      console.log(`FAIL message ${got} differs`);
      process.exit(1);
    }
    got += 1;
    if (got === Number(count)) ws.close(4321, 'enough');
    else send();
  });
  ws.on('close', (code, reason) => {
    console.log(`closed ${code} ${reason} after ${got}`);
  });
  ws.on('error', (error) => {
    console.log(`FAIL ${error.message}`);
    process.exit(1);
  });
}

if (process.argv[2] === 'codec') codec();
else if (process.argv[2] === 'server') server();
else client(process.argv[3], process.argv[4], process.argv[5]);
