"""What the prompts of our tasks say in each language: `WORDS`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """What a prompt says in one language.

    Attributes:
        context: Label of the passage, with its colon. As all labels: an ASCII colon even in Chinese, as the answer
            follows after a space, and a model's tokenizer may join a full-width colon and the answer to one token.
        question: Label of the question, with its colon.
        answer: Label of the answer, with its colon.
        ask: The choice that is put after a hypothesis: yes, no, or maybe?
        yes: The choice for an entailment.
        maybe: The choice for a neutral pair.
        no: The choice for a contradiction. No choice begins with another one, as the longer could then never win.
    """

    context: str
    question: str
    answer: str
    ask: str
    yes: str
    maybe: str
    no: str

    @property
    def choices(self) -> list[str]:
        """The answers to `ask`, in the order of XNLI's labels: entailment, neutral, contradiction."""
        return [self.yes, self.maybe, self.no]


WORDS = {
    "ar": Words("السياق:", "السؤال:", "الإجابة:", "نعم أم لا أم ربما؟", "نعم", "ربما", "لا"),
    "bg": Words("Контекст:", "Въпрос:", "Отговор:", "Да, не или може би?", "Да", "Може би", "Не"),
    "de": Words("Kontext:", "Frage:", "Antwort:", "Ja, nein oder vielleicht?", "Ja", "Vielleicht", "Nein"),
    "el": Words("Κείμενο:", "Ερώτηση:", "Απάντηση:", "Ναι, όχι ή ίσως;", "Ναι", "Ίσως", "Όχι"),
    "en": Words("Context:", "Question:", "Answer:", "Yes, no, or maybe?", "Yes", "Maybe", "No"),
    "es": Words("Contexto:", "Pregunta:", "Respuesta:", "¿Sí, no o quizás?", "Sí", "Quizás", "No"),
    "fr": Words("Contexte :", "Question :", "Réponse :", "Oui, non ou peut-être ?", "Oui", "Peut-être", "Non"),
    "hi": Words("संदर्भ:", "प्रश्न:", "उत्तर:", "हाँ, नहीं या शायद?", "हाँ", "शायद", "नहीं"),
    "ro": Words("Context:", "Întrebare:", "Răspuns:", "Da, nu sau poate?", "Da", "Poate", "Nu"),
    "ru": Words("Контекст:", "Вопрос:", "Ответ:", "Да, нет или может быть?", "Да", "Может быть", "Нет"),
    "sw": Words("Muktadha:", "Swali:", "Jibu:", "Ndiyo, hapana, au labda?", "Ndiyo", "Labda", "Hapana"),
    "th": Words("บริบท:", "คำถาม:", "คำตอบ:", "ใช่ ไม่ใช่ หรืออาจจะ?", "ใช่", "อาจจะ", "ไม่ใช่"),
    "tr": Words("Bağlam:", "Soru:", "Cevap:", "Evet mi, hayır mı, belki mi?", "Evet", "Belki", "Hayır"),
    "ur": Words("عبارت:", "سوال:", "جواب:", "ہاں، نہیں یا شاید؟", "ہاں", "شاید", "نہیں"),
    "vi": Words("Ngữ cảnh:", "Câu hỏi:", "Trả lời:", "Đúng, sai hay có thể?", "Đúng", "Có thể", "Sai"),
    "zh": Words("上下文:", "问题:", "答案:", "是、否，还是也许？", "是", "也许", "否"),
}
