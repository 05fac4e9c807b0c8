"""Classification: logistic regression over vectors, from twelve labelled sentences per class."""

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from llm_embeddings import Encoder

LABELLED = {
    "health": """The patient has had a fever since Tuesday. | Wash the wound and keep it dry.
        Antibiotics do not work against viruses. | Her blood pressure is too high.
        The child was vaccinated against measles. | He broke his arm in two places.
        Too much salt is bad for the kidneys. | The surgeon removed the appendix.
        Asthma makes it hard to breathe. | Insulin lowers the level of sugar in the blood.
        The doctor listened to her heart. | An allergy can cause a rash.""",
    "money": """The bank raised its interest rate. | Shares fell by four percent.
        The company paid a dividend to its owners. | Unemployment is at its lowest in years.
        She took out a loan to buy the house. | Inflation eats up savings.
        The government will cut the income tax. | Exports grew faster than imports.
        The firm cannot pay its debts. | Investors sold their bonds.
        Rents have doubled in ten years. | The price of oil rose again.""",
    "sky": """The comet will be visible before dawn. | Jupiter has four large moons.
        A star collapses when its fuel is gone. | The telescope points at a distant galaxy.
        Mars is red because of rusty dust. | The moon moved in front of the sun.
        Light from the quasar is billions of years old. | Saturn's rings are made of ice.
        The planet orbits two suns. | A supernova outshines its galaxy.
        Black holes bend light around them. | Astronauts repaired the space station.""",
}
UNSEEN = (
    "The nurse gave him a painkiller.",
    "Wages did not keep up with prices.",
    "A meteor burned up over the desert.",
)


def main() -> None:
    texts, labels = [], []
    for label, block in LABELLED.items():
        sentences = [s.strip() for line in block.splitlines() for s in line.split("|")]
        texts += sentences
        labels += [label] * len(sentences)
    encoder = Encoder.from_pretrained()
    # For a model that takes instructions: encode_query(texts, "Classify the topic of the sentence")
    vectors = encoder.encode_document(texts)
    classifier = LogisticRegression(C=10)
    accuracy = cross_val_score(classifier, vectors, labels, cv=4).mean()
    print(f"{len(texts)} sentences, {len(LABELLED)} classes: {accuracy:.2f} right by 4-fold check")
    classifier.fit(vectors, labels)
    for text, probabilities in zip(
        UNSEEN, classifier.predict_proba(encoder.encode_document(UNSEEN)), strict=True
    ):
        best = probabilities.argmax()
        print(f"  {classifier.classes_[best]:7} {probabilities[best]:.2f}  {text}")


if __name__ == "__main__":
    main()
