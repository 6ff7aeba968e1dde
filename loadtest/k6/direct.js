// The scenario `direct` for those who use k6: pairs of users in direct chats, each sending at a fixed rate.
//
//   cargo xtask up                                        (with the settings of loadtest/scenarios/README.md)
//   target/release/gateway provision --users 200 > users.jsonl   (with MT_POSTGRES_URL and MT_KEYS_DIR of that run)
//   k6 run -e USERS=users.jsonl loadtest/k6/direct.js
//
// k6 spends 20 to 50 times the CPU of `loadtest` on a socket, and its sends are timed by each user's own interval, so
// it is right for hundreds of users, on a machine of its own. Latency is that of the message at the other user.

import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { clearInterval, setInterval, setTimeout } from 'k6/timers';
import { WebSocket } from 'k6/websockets';

/** @typedef {{ userId: number, accessToken: string }} Account */
/** @typedef {{ type: string, chatId?: number, seq?: number, prev?: number, from?: number, body?: string, code?: string }} Frame */

const BASE = __ENV.BASE || 'http://127.0.0.1:8080';
const USERS = Number(__ENV.SOCKETS || 200);
const RATE = Number(__ENV.RATE || 100);
const SECONDS = Number(__ENV.SECONDS || 30);
const WARMUP_MS = 5_000;
const SETTLE_MS = 2_000;

/** @type {Account[]} */
const accounts = open(__ENV.USERS || 'users.jsonl')
  .split('\n')
  .filter((line) => line.includes('accessToken'))
  .map((line) => JSON.parse(line))
  .slice(0, USERS - (USERS % 2));

const delivery = new Trend('delivery_ms', true);
const ack = new Trend('ack_ms', true);
const sent = new Counter('messages_sent');
const acked = new Counter('messages_acked');
const delivered = new Counter('messages_delivered');
const broken = new Counter('promises_broken');

export const options = {
  scenarios: {
    direct: {
      executor: 'per-vu-iterations',
      vus: accounts.length,
      iterations: 1,
      maxDuration: `${SECONDS + 60}s`,
    },
  },
  thresholds: {
    promises_broken: ['count==0'],
    delivery_ms: ['p(50)<50', 'p(99)<200'],
  },
};

/**
 * The direct chats of neighbours, by pair.
 * @returns {{ id: number, head: number }[]}
 */
export function setup() {
  const chats = [];
  for (let at = 0; at + 1 < accounts.length; at += 2) {
    const response = http.post(
      `${BASE}/v1/chats`,
      JSON.stringify({ type: 1, memberIds: [accounts[at + 1].userId] }),
      { headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${accounts[at].accessToken}` } },
    );
    check(response, { 'the chat exists': (answer) => answer.status === 201 || answer.status === 200 });
    const chat = /** @type {{ id: number, lastSeq: number }} */ (response.json());
    chats.push({ id: chat.id, head: chat.lastSeq });
  }
  return chats;
}

/** A version 4 uuid: k6 has no generator of version 7, so the server looks each one up. */
function uuid() {
  return 'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replace(/x/g, () => Math.floor(Math.random() * 16).toString(16));
}

/** @param {{ id: number, head: number }[]} chats */
export default function (chats) {
  const at = exec.vu.idInTest - 1;
  const account = accounts[at];
  const chat = chats[Math.floor(at / 2)];
  /** @type {Map<string, number>} */
  const waiting = new Map();
  let head = chat.head;
  let measuring = false;
  const socket = new WebSocket(
    `${BASE.replace('http', 'ws')}/v1/ws?token=${account.accessToken}&device=k6`,
    null,
    {},
  );

  function send() {
    const id = uuid();
    const now = Date.now();
    waiting.set(id, now);
    sent.add(1);
    socket.send(JSON.stringify({ type: 'SendMessage', uuid: id, chatId: chat.id, body: `t=${now};hello` }));
  }

  /** @param {Frame} frame */
  function message(frame) {
    if (frame.prev !== head) {
      broken.add(1);
    }
    head = frame.seq || head;
    if (frame.from === account.userId) {
      return;
    }
    delivered.add(1);
    const intended = Number(/^t=(\d+);/.exec(frame.body || '')?.[1]);
    if (measuring && intended) {
      delivery.add(Date.now() - intended);
    }
  }

  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;
  socket.onmessage = (event) => {
    const frame = /** @type {Frame & { uuid?: string }} */ (JSON.parse(String(event?.data)));
    switch (frame.type) {
      case 'Live':
        if (timer === undefined) {
          const every = (accounts.length / RATE) * 1_000;
          // Spread over the interval, or all users would send at once.
          setTimeout(() => { timer = setInterval(send, every); }, Math.random() * every);
          setTimeout(() => { measuring = true; }, WARMUP_MS);
          setTimeout(() => { if (timer !== undefined) clearInterval(timer); }, SECONDS * 1_000);
          setTimeout(() => { broken.add(waiting.size); socket.close(); }, SECONDS * 1_000 + SETTLE_MS);
        }
        break;
      case 'Message':
        message(frame);
        break;
      case 'Ack': {
        const since = waiting.get(frame.uuid || '');
        if (since === undefined) {
          broken.add(1);
        } else if (measuring) {
          ack.add(Date.now() - since);
        }
        waiting.delete(frame.uuid || '');
        acked.add(1);
        break;
      }
      case 'Ping':
        socket.send(JSON.stringify({ type: 'Pong' }));
        break;
      case 'Error':
        console.error(`refused: ${frame.code}`);
        broken.add(1);
        break;
    }
  };
  socket.onerror = (error) => {
    console.error(`socket: ${error?.error}`);
    broken.add(1);
  };
}
