import { EventHubConsumerClient } from "@azure/event-hubs";
const cs = process.env.EVENT_HUB_CONNECTION_STR.replace("SharedAccessKey=", "SharedAccessKey=AAAA");
const c = new EventHubConsumerClient("$Default", cs);
const t = Date.now();
try { console.log(await c.getPartitionIds()); } catch (e) { console.log(e.errors ? e.errors.map(x => x.name + " " + x.code + " " + x.message.slice(0,120)) : ""); console.log("ERR", e.name, e.code, e.message.slice(0,150), (Date.now()-t)/1000); }
await c.close(); console.log("closed");
