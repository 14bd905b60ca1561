// Calls a pool with OpenAI's client for Node and prints what it got, as one JSON object; test_openai_node.py judges it.
// Usage: node openai_node.mjs BASE_URL KEY
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const prompt = "The operator";
const messages = [{ role: "user", content: "What is a revision?" }];
const greedy = { model: "prose", max_tokens: 16, temperature: 0 };

async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param, message: error.message };
  }
}

async function texts(stream, text) {
  const found = { text: "", pieces: 0, usage: null };
  for await (const chunk of await stream) {
    for (const choice of chunk.choices) {
      found.text += text(choice) ?? "";
      found.pieces += 1;
    }
    found.usage = chunk.usage ?? found.usage;
  }
  return found;
}

async function leftEarly() {
  const stream = await client.completions.create({ model: "prose", prompt, max_tokens: 450, temperature: 1.5, stream: true });
  for await (const chunk of stream) {
    stream.controller.abort();
    return chunk.choices.length;
  }
}

const streamed = { stream: true, stream_options: { include_usage: true } };
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({
  completion: await client.completions.create({ ...greedy, prompt, logprobs: 2 }),
  chat: await client.chat.completions.create({ ...greedy, messages, logprobs: true, top_logprobs: 2 }),
  streamedCompletion: await texts(client.completions.create({ ...greedy, ...streamed, prompt }), (choice) => choice.text),
  streamedChat: await texts(client.chat.completions.create({ ...greedy, ...streamed, messages }), (choice) => choice.delta.content),
  batch: await client.completions.create({ ...greedy, prompt: [prompt, "An Expert"] }),
  models,
  model: await client.models.retrieve("code"),
  leftEarly: await leftEarly(),
  afterwards: (await client.completions.create({ ...greedy, prompt, max_tokens: 1 })).choices.length,
  errors: {
    key: await failure(() => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list()),
    model: await failure(() => client.models.retrieve("prosa")),
    field: await failure(() => client.chat.completions.create({ ...greedy, messages, logit_bias: { 5: 100 } })),
    length: await failure(() => client.completions.create({ ...greedy, prompt: "many words ".repeat(600) })),
    timeout: await failure(() => client.completions.create({ ...greedy, prompt, max_tokens: 400, temperature: 1.5 }, { timeout: 10 })),
    address: await failure(() => new OpenAI({ baseURL: baseURL.replace("/v1", ""), apiKey, maxRetries: 0 }).models.list()),
  },
}));
