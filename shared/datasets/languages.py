"""A light guess at the language of a text, by script and small words: good for shares over many rows, not for one."""

import re
from collections import Counter

SCRIPTS = {
    "ja": "\u3040-\u30ff",
    "ko": "\uac00-\ud7af\u1100-\u11ff",
    "zh": "\u4e00-\u9fff",
    "th": "\u0e00-\u0e7f",
    "hi": "\u0900-\u097f",
    "bn": "\u0980-\u09ff",
    "ta": "\u0b80-\u0bff",
    "he": "\u0590-\u05ff",
    "el": "\u0370-\u03ff",
    "ar": "\u0600-\u06ff",
    "ru": "\u0400-\u04ff",
}
SCRIPT_PATTERNS = {code: re.compile(f"[{span}]") for code, span in SCRIPTS.items()}
NOT_LATIN = re.compile("[\u0370-\u1dff\u3040-\ud7af]")
SMALL_WORDS = {
    "en": "the and of to is in that it you for with are this was what how be have not can i my your from",
    "de": "der die das und ist nicht ein eine ich du sie wir mit auf für von zu den dem im wie auch kann wird",
    "fr": "le la les des et est une un du pas vous je nous pour dans que qui avec sur ce cette au comment être",
    "es": "el la los las y es una un del no por para que con en se cómo está su lo más como qué puede muy",
    "it": "il lo gli le e è una un di non per che con in si come della sono nel anche più questo mi alla",
    "pt": "o os as e é uma um do da não por para que com em se como está seu mais você isso são dos ao",
    "nl": "de het een en is niet van voor met op dat te zijn ik je we hoe ook aan wordt kan deze bij naar",
    "pl": "i w na nie się jest to że z do jak co dla po czy są jego tego lub przez może być tym",
    "sv": "och är det att en ett som på för inte med av den jag du har kan till om från vi hur",
    "da": "og er det at en et som på for ikke med af den jeg du har kan til om fra vi hvordan der",
    "cs": "a je se na to že v s z jak co pro ale jsou být by do nebo jako které této si",
    "ro": "și este nu un o în de la cu pe care ce pentru sunt din mai ca să se poate acest cum",
    "tr": "ve bir bu için ile ne de da mi çok daha olarak var ben sen nasıl gibi olan değil en",
    "vi": "là và của có không một các cho được trong tôi bạn với để này những như thế nào khi",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam adalah pada saya anda ke bisa akan apa bagaimana juga",
}
BY_WORD: dict[str, list[str]] = {}
for _code, _words in SMALL_WORDS.items():
    for _word in _words.split():
        BY_WORD.setdefault(_word, []).append(_code)


def guess(text: str) -> str:
    """The ISO 639-1 code of the language that `text` (its first 600 characters) is likely in, or "unknown"."""
    text = text[:600]
    if not text.isascii() and len(NOT_LATIN.findall(text)) > 0.3 * sum(map(str.isalpha, text)):
        return _by_script(text)
    hits = Counter(code for word in re.findall(r"[^\W\d_]+", text.lower()) for code in BY_WORD.get(word, ()))
    ranked = [*hits.most_common(2), ("unknown", 0), ("unknown", 0)]
    return ranked[0][0] if ranked[0][1] >= 2 and ranked[0][1] > ranked[1][1] else "unknown"


def _by_script(text: str) -> str:
    counts = {code: len(pattern.findall(text)) for code, pattern in SCRIPT_PATTERNS.items()}
    code = max(counts, key=counts.get)
    if code == "zh" and counts["ja"] > 0.1 * counts["zh"]:  # Japanese mixes both scripts
        return "ja"
    if code == "ru" and re.search("[іїєґ]", text.lower()):
        return "uk"
    return "fa" if code == "ar" and re.search("[پچژگ]", text) else code
