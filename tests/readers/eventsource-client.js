import { createEventSource } from "eventsource-client";

const [url, authorization] = process.argv.slice(2);
const headers = authorization ? { authorization } : {};

for await (const { event = "message", data } of createEventSource({ url, headers })) console.log(JSON.stringify([event, data]));
