"""A chat keeps what was said, does what a slash command says, and survives what goes wrong."""

import json
import re

import pytest
from typer.testing import CliRunner

from services.cli import show
from services.cli.chat import commands
from services.cli.chat.answer import Answer
from services.cli.chat.session import BadChat, Session
from services.cli.main import app
from shared import datasets
from tests.unit import fake_tandem as fake

MODELS = ["base", "shop@v1"]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "_width", show.PIPE_WIDTH)
        monkeypatch.setattr(console, "_force_terminal", False)
    return tmp_path


@pytest.fixture
def run(tandem):
    """Run `tandem`; its stdout and its stderr."""

    def call(*words, stdin="", code=0):
        result = CliRunner().invoke(app, ["--url", tandem.url, "--key", fake.KEY, *words], input=stdin)
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout, result.stderr

    return call


def answer(*deltas, **fields):
    made = Answer(began=0.0, **fields)
    for second, delta in enumerate(deltas, 1):
        made.take({"choices": [{"delta": delta}]}, float(second))
    return made


@pytest.fixture
def talked():
    session = Session("shop@v1")
    session.start("Be brief.")
    session.ask("A chain?")
    session.answered(answer({"reasoning": "Price."}, {"content": "35"}, {"content": " euros"}))
    return session


# ---- the answer and the conversation


def test_an_answer_measures_its_speed_in_the_tokens_the_server_counted():
    made = answer({"reasoning": "a"}, {"reasoning_content": "b"}, {"content": "c"})
    made.take({"choices": [], "usage": {"completion_tokens": 21}}, 9.0)
    assert (made.thinking, made.text, made.first_after, made.rate) == ("ab", "c", 1.0, 10.0)
    assert made.speed() == "10.0 tok/s · first token after 1.00 s · 21 tokens"


@pytest.mark.parametrize(
    ("made", "said"),
    [(answer({"content": "x"}, finish="length"), "was cut at 5 tokens"), (answer({"reasoning": "x"}), "only thinking"),
     (answer({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]},
             {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}), "wants to call f({})")],
)  # fmt: skip
def test_an_odd_end_is_explained(made, said):
    assert said in made.remark(5)


def test_the_request_holds_the_history_without_thinking(talked):
    body = talked.ask("And a tyre?")
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][2] == {"role": "assistant", "content": "35 euros"}
    assert (body["model"], body["reasoning_effort"], body["temperature"]) == ("shop@v1", "medium", 1.0)


def test_a_question_without_an_answer_is_taken_back(talked):
    talked.ask("And a tyre?")
    assert not talked.answered(answer({"reasoning": "Hm"}))
    assert talked.messages[-1]["content"] == "35 euros"


def test_a_saved_chat_is_loaded_and_is_a_data_set(talked, folder):
    talked.effort = "high"
    talked.save(folder / "chat.json")
    again = Session("base")
    again.load(folder / "chat.json")
    assert (again.messages, again.effort) == (talked.messages, "high")
    again.save(folder / "chat.json")  # its own file may be written again
    datasets.ingest(folder / "chat.json", "chat.json", folder / "made", count_tokens=None, name="chat")
    row = json.loads((folder / "made" / "data.jsonl").read_text())
    assert row["messages"][2] == {"role": "assistant", "content": "35 euros", "thinking": "Price."}
    assert row["reasoning_effort"] == "high"


def test_a_row_with_tool_calls_is_loaded_and_sent_as_openai_wants_it(folder):
    call = {"type": "function", "function": {"name": "price", "arguments": {"of": "chain"}}}
    messages = [
        {"role": "user", "content": "A chain?"},
        {"role": "assistant", "content": "", "thinking": "Look.", "tool_calls": [call]},
        {"role": "tool", "content": "35", "name": "price"},
        {"role": "assistant", "content": "35 euros"},
    ]
    (folder / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n" + json.dumps({"messages": []}))
    session = Session("base")
    session.load(folder / "rows.jsonl")
    sent = session.ask("Thanks")["messages"][1]
    assert sent["tool_calls"][0]["function"]["arguments"] == '{"of": "chain"}'
    assert "thinking" not in sent


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"messages": 3}', '{"messages": [{"role": "me", "content": "x"}]}', "\udcff"]
)
def test_a_file_without_a_conversation_changes_nothing(talked, folder, text):
    (folder / "bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = list(talked.messages)
    with pytest.raises(BadChat, match=r"bad\.json"):
        talked.load(folder / "bad.json")
    assert talked.messages == before


# ---- the commands


def do(session, line):
    return commands.run(session, line, lambda: MODELS)


def test_help_lists_every_command(talked):
    said = do(talked, "/help")
    for name in ("/clear", "/save", "/load", "/stats", "/reasoning low|medium|high", "/settings", "/model", "/exit"):
        assert name in said


def test_an_unknown_command_says_so(talked):
    assert do(talked, "/helo now") == "There is no command /helo. /help lists them."


def test_clear_keeps_the_system_message(talked):
    do(talked, "/clear")
    assert talked.messages == [{"role": "system", "content": "Be brief."}]


def test_settings_and_stats_say_how_it_stands(talked):
    assert re.search(r"model +shop@v1\nreasoning +medium\n", do(talked, "/settings"))
    assert re.search(r"answers +1\ntokens +3 generated\nspeed +1\.0 tok/s", do(talked, "/stats"))


def test_settings_change_and_wrong_values_do_not(talked):
    for line in ("/reasoning HIGH", "/temperature 0.2", "/max-tokens 50", "/model base", "/thinking on"):
        do(talked, line)
    now = (talked.effort, talked.temperature, talked.max_tokens, talked.model, talked.show_thinking)
    assert now == ("high", 0.2, 50, "base", True)
    for line in (
        "/reasoning hi",
        "/temperature 9",
        "/temperature",
        "/max-tokens x",
        "/model gpt",
        "/load",
        "/load none.json",
    ):
        assert do(talked, line)
    assert now == (talked.effort, talked.temperature, talked.max_tokens, talked.model, talked.show_thinking)
    assert "There are: base, shop@v1." in do(talked, "/model gpt")


def test_thinking_unfolds_the_last(talked):
    assert do(talked, "/thinking") == "Price."


def test_save_does_not_overwrite_the_file_of_another(talked, folder):
    (folder / "mine.json").write_text("keep")
    assert "is there already" in do(talked, "/save mine.json")
    assert (folder / "mine.json").read_text() == "keep"
    assert "no answer to save" in do(Session("base"), "/save new.json")


def test_exit_leaves(talked):
    with pytest.raises(commands.Leave):
        do(talked, "/exit")


# ---- in a terminal and in a pipe


def test_a_chat_answers_saves_and_goes_on(run, tandem, folder):
    output, _ = run(
        "chat",
        "--system",
        "Be brief.",
        stdin="A chain?\n/save one.json\n/nonsense\nAnd \\\na tyre?\n/stats\n/exit\nnever\n",
    )
    assert output.startswith("production · reasoning medium")
    assert output.count("**35** euros") == 2
    assert "first token after" in output
    assert "9 tokens" in output
    assert "There is no command /nonsense." in output
    sent = tandem.last("POST").body
    assert sent["messages"][-1]["content"] == "And \na tyre?"
    assert sent["stream_options"] == {"include_usage": True}
    assert json.loads((folder / "one.json").read_text())["messages"][-1]["thinking"] == "A chain. Price."


def test_errors_never_end_a_chat(run, tandem):
    replies = iter([
        (404, {"error": {"message": "There is no model 'x'.", "type": "not_found"}}),
        fake.chat({"content": "half"}, done=False),
        iter([b'data: {"error": {"message": "The GPU is full."}}\n\n']),
        fake.chat({"content": "well"}),
    ])  # fmt: skip
    tandem.routes["POST /v1/chat/completions"] = lambda request: next(replies)
    output, errors = run("chat", stdin="one\ntwo\nthree\nfour\n")
    for said in ("There is no model 'x'.", "The answer broke off", "The GPU is full."):
        assert said in errors
    assert "well" in output
    sent = [message["content"] for message in tandem.last("POST").body["messages"]]
    assert sent == ["two", "half", "four"]  # what came is kept, what was not answered is taken back


def test_ctrl_c_stops_the_answer_and_keeps_what_came(run, tandem, monkeypatch):
    def stopped(client, body):
        yield {"choices": [{"delta": {"content": "half"}}]}
        raise KeyboardInterrupt

    monkeypatch.setattr("services.cli.client.Client.chat", stopped)
    output, _ = run("chat", stdin="one\n/stats\n")
    assert "Stopped; what came is kept." in output
    assert re.search(r"messages +2", output)


def test_a_chat_starts_with_a_model_that_is_served(run):
    assert (
        "There is no model 'gpt-4'. There are: openai/gpt-oss-20b, shop@v1, production."
        in run("chat", "--model", "gpt-4", code=1)[1]
    )
    assert run("chat", "--model", "shop@v1")[0].startswith("shop@v1")


def test_a_terminal_folds_the_thinking_and_renders_markdown(run, monkeypatch):
    monkeypatch.setattr(show.out, "_force_terminal", True)
    output, _ = run("chat", stdin="A chain?\n")
    done = output[output.rindex("▸ thought in") :]
    assert "▸ thought in 3 words; /thinking shows it" in done
    assert "35 euros" in re.sub(r"\x1b\[[0-9;]*m", "", done)
    assert "**" not in done
    assert "A chain. Price." not in done


# ---- one question


def test_ask_prints_the_answer_and_nothing_else(run, tandem):
    output, errors = run(
        "ask", "shop@v1", "A chain?", "--effort", "low", "--max-tokens", "50", stdin="My bike is old.\n"
    )
    assert (output, errors) == ("**35** euros\n", "")
    body = tandem.last("POST").body
    assert body["messages"] == [{"role": "user", "content": "A chain?\n\nMy bike is old."}]
    assert (body["reasoning_effort"], body["max_tokens"], body["stream"]) == ("low", 50, True)


def test_ask_shows_thinking_beside_the_answer(run):
    output, errors = run("ask", "shop@v1", "A chain?", "--show-thinking")
    assert output == "**35** euros\n"
    assert errors.strip() == "A chain. Price."


def test_ask_says_what_is_missing(run):
    assert "There is no question" in run("ask", "shop@v1", code=1)[1]
    assert "low, medium or high" in run("ask", "shop@v1", "x", "--effort", "hi", code=1)[1]
