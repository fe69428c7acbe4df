"""`assistant`: the loop that people know, durable. Each model call and each tool call is a step.

The conversation is the agent's own variable: after a crash it is the same again, from the steps' checkpoints.
"""

import asyncio
from datetime import timedelta
from typing import Any

from agentq import Retry, Run, agent, step
from workers.agents import model, tools

TURNS = 20
SYSTEM = "Solve the task. Use the tools where they help; when you know the answer, reply with it alone."
Message = dict[str, Any]


@step(pool="model", retry=Retry(attempts=4, on=(model.ModelUnavailable,)), timeout=timedelta(minutes=3))
async def think(messages: list[Message]) -> model.Reply:
    """The model's next message, given the conversation so far."""
    return await model.chat(messages, tools=tools.described())


@agent(pool="managers", version="1")
async def assistant(run: Run, task: str) -> str:
    """The model's answer to the task, after as many tool calls as it wants in at most 20 turns."""
    messages: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    for _ in range(TURNS):
        reply = await run.call(think, messages)
        if not reply.calls:
            return reply.text
        messages.append(reply.message)
        messages += await asyncio.gather(*(use_tool(run, call) for call in reply.calls))
    return f"No answer after {TURNS} turns. The last words were: {reply.text or '(none)'}"


async def use_tool(run: Run, call: model.ToolCall) -> Message:
    """The tool's result as the message that answers the call; what went wrong is a result too."""
    try:
        argument = tools.argument_of(call.name, call.arguments)
        content = await run.call(tools.TOOLS[call.name][0], argument)
    except tools.Refused as reason:
        content = f"Refused: {reason}."
    return {"role": "tool", "tool_call_id": call.id, "content": content}
