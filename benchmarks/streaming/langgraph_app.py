"""A LangGraph of one node that asks the model; `langgraph dev` serves it, with UPSTREAM in the environment.

The last message names the model.
"""

import os
from functools import cache

from langchain_openai import ChatOpenAI  # type: ignore[import-not-found]  # installed in .venv-bench alone
from langgraph.graph import START, MessagesState, StateGraph  # type: ignore[import-not-found]  # as above


@cache
def model_of(name: str) -> ChatOpenAI:
    """Return the client of a model."""
    return ChatOpenAI(model=name, base_url=os.environ["UPSTREAM"], api_key="benchmark", streaming=True, max_retries=0)


async def ask(state: MessagesState) -> dict[str, list[object]]:
    """Answer the conversation so far."""
    messages = state["messages"]
    return {"messages": [await model_of(messages[-1].content).ainvoke(messages)]}


graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile()
