from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.fingerprints import MOST_TOKENS, Fingerprint, fingerprints, likeness, normalise, numbers, tokenise

SAME_STORY = [
    ("UPDATE 1-Halden Bank Q2 net profit rises 12 pct", "Halden Bank Q2 net profit rises 12 pct, fees strong"),
    ("Norvik Motors to cut 4,000 jobs in Poland", "Norvik Motors to cut 4000 jobs in Poland - sources"),
    ("Halden Bank shares plunge on bad loans", "Halden Bank shares sink on bad loans"),
    ("Norvik to invest C$80 mln in plant -minister", "Norvik to invest C$80 million in plant"),
    ("WRAPUP 2-Oil slides as storm misses Gulf platforms", "Oil slides as storm misses Gulf platforms"),
    ("FOREX-Krone steadies ahead of rate decision", "Krone steadies ahead of rate decision"),
    ("U.S. senators back bill on crypto custody", "US senators back bill on crypto custody"),
    ("Chipmaker Tarvos warns of weak quarter, shares sink", "Chipmaker Tarvos warns of weak quarter"),
    ("Ratings firm cuts Halden Bank outlook to negative", "Ratings firm cuts Halden Bank's outlook to negative -statement"),
    ("EXCLUSIVE-UPDATE 3-Tarvos in talks to buy rival Lumeq", "Tarvos in talks to buy rival Lumeq: sources"),
    ("Central bank holds rates, signals cut in spring", "Central bank holds rates and signals cut in the spring"),
    ("Ferry operator Kestrel files for bankruptcy protection", "Kestrel, ferry operator, files for bankruptcy protection"),
    ("CHRONOLOGY-Competition in retail energy", "TIMELINE: Competition in retail energy"),
    ("Halden Bank names Moe as finance chief", "Halden Bank names Moe as finance chief | Bloomberg"),
    ("CORRECTED (OFFICIAL)-Fund outflows hit record in March", "Fund outflows hit record in March"),
    ("【快讯】海登银行第二季度净利润增长12%", "海登银行第二季度净利润增长12%，手续费收入强劲"),
    ("监管机构因反洗钱不力对海登银行处以罚款", "更正：监管机构因反洗钱不力对海登银行处以罚款"),
    ("塔沃斯宣布裁员四千人，股价大跌", "塔沃斯宣布裁员四千人"),
    ("据悉海登银行将出售海外业务", "海登银行将出售海外业务"),
    ("监管机构对海登银行处以罚款", "海登银行被监管机构处以罚款"),
    ("海登银行ＱＤＩＩ基金获批", "海登银行QDII基金获批"),
]

OTHER_STORY = [
    ("Halden Bank Q2 net profit rises 12 pct", "Norvik Bank Q2 net profit rises 12 pct"),
    ("Halden Bank Q2 net profit rises 12 pct", "Halden Bank Q2 net profit rises 40 pct"),
    ("Halden Bank Q2 net profit rises 12 pct", "Tarvos Group Q2 net profit rises 40 pct"),
    ("Dollar falls against yen on growth fears", "Euro falls against yen on growth fears"),
    ("Halden Bank shares rise on takeover talk", "Halden Bank shares fall after fine"),
    ("Halden Bank shares rise after rate decision", "Halden Bank shares fall after rate decision"),
    ("Broker raises Halden Bank to hold", "Broker cuts Halden Bank to hold"),
    ("PRESS DIGEST - Norway - May 4", "PRESS DIGEST - Denmark - May 4"),
    ("PRESS DIGEST - Norway - May 4", "PRESS DIGEST - Norway - May 5"),
    ("DIARY - Today in Norway - May 4", "PRESS DIGEST - Norway - May 4"),
    ("TABLE-Norvik Aug vehicle sales off 4.4 pct", "TABLE-Orsted Aug vehicle sales off 29.3 pct"),
    ("Bonds firm before auction on Tuesday", "Bonds firm before auction on Wednesday"),
    ("Blast at refinery kills six", "Blast at bus terminal kills six"),
    ("Oil rises above $80 a barrel", "Oil rises above $90 a barrel"),
    ("Central bank raises rates by 25 basis points", "Central bank cuts rates by 50 basis points"),
    ("Tarvos to buy rival Lumeq", "Regulator blocks Tarvos bid for Lumeq"),
    ("Halden Bank sued by pension fund over bond sale", "Pension fund buys Halden Bank headquarters"),
    ("海登银行第二季度净利润增长12%", "海登银行第二季度净利润增长40%"),
    ("海登银行任命新任首席财务官", "塔沃斯集团宣布收购竞争对手"),
    ("央行宣布下调存款准备金率", "央行宣布上调外汇存款准备金率"),
    ("海登银行第二季度净利润创新高", "诺维克银行第二季度净利润创新高"),
    ("海登科技涉嫌信息披露违规被立案调查", "塔沃斯科技涉嫌信息披露违规被立案调查"),
    ("海登早评：周一股市必读", "海登早评：周四股市必读"),
    ("沪指午盘收涨，券商股领涨", "沪指午盘收跌，券商股领跌"),
]


REWRITTEN = [
    ("Regulator fines Halden Bank over money laundering failures", "Halden Bank fined by regulator over money laundering failures"),
    ("Strike shuts Orsk copper mine for second day", "Orsk copper mine shut for second day by strike"),
    ("Norvik to shed 4,000 posts", "Norvik plans deep job cuts in Poland"),
]


def printed(headline: str, body: str = "", source: str = "") -> Fingerprint:
    return fingerprints([normalise(headline, body, source)])[0]


def tells_one_story(one: str, other: str) -> bool:
    first, second = printed(one), printed(other)
    if first.keys[:8] == second.keys[:8]:
        return True
    found = likeness(first.shingles, second.shingles)
    return (found.jaccard >= 0.5 or found.containment >= 0.8) and not found.contradicts


@pytest.mark.parametrize(("one", "other"), SAME_STORY)
def test_headlines_of_one_story_are_alike(one, other):
    assert tells_one_story(one, other)
    assert tells_one_story(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER_STORY)
def test_one_sentence_used_for_two_events_is_two_stories(one, other):
    assert not tells_one_story(one, other)
    assert not tells_one_story(other, one)


@pytest.mark.parametrize(("one", "other"), REWRITTEN)
def test_a_sentence_written_anew_is_not_recognised(one, other):
    """The limit of shared words, kept in view: such a pair counts as two stories."""
    assert not tells_one_story(one, other)


def test_wire_prefixes_credits_datelines_and_source_tails_leave_no_trace():
    plain = normalise("Halden Bank fined", "The regulator fined the bank.", "")
    dressed = normalise(
        "RPT-CORRECTED (OFFICIAL)-UPDATE 2-Halden Bank fined - Northern Wire",
        "OSLO, May 4 (Reuters) - The regulator fined the bank. (Reporting by A. Writer; Editing by B. Editor)",
        "northernwire.example",
    )
    assert dressed == plain == "halden bank fined\nthe regulator fined the bank."


CHINESE_TITLES = [
    "【转载】{}",
    "转载：{}",
    "（独家）{}",
    "突发！{}",
    "原标题：{}",
    "【重磅】【快讯】{}",
    "{}（转载）",
    "{}（转载自新浪财经）",
    "{}(组图)",
    "{}_新浪财经_新浪网",
    "{}-新华网",
    "{} | 界面新闻",
    "财联社5月4日电，{}",
]
CHINESE_BODIES = [
    "新华社北京5月4日电（记者 张三、李四）{}",
    "中新社上海5月4日电 (记者 张三) {}",
    "据彭博社报道，{}",
    "本报讯（记者张三）{}",
    "来源：每日一报 2026-05-04 08:00 {}",
    "{}（责任编辑：张三）",
    "{} 责任编辑：张三 SF001",
    "{}文章来源：证券时报网",
    "{}转载请注明出处。免责声明：本文仅代表作者观点。",
]
STORY = "监管机构周一对海登银行处以三亿元罚款。该行在反洗钱审查中隐瞒了交易。董事长宣布辞职。"


@pytest.mark.parametrize("dress", CHINESE_TITLES)
def test_what_chinese_media_set_around_a_title_leaves_no_trace(dress):
    assert normalise(dress.format("海登银行反洗钱不力被罚三亿元"), "", "") == "海登银行反洗钱不力被罚三亿元"


@pytest.mark.parametrize("dress", CHINESE_BODIES)
def test_what_chinese_media_set_around_a_text_leaves_no_trace(dress):
    assert tokenise(normalise("", dress.format(STORY), "")) == tokenise(normalise("", STORY, ""))


@pytest.mark.parametrize(
    "text",
    [
        "海登银行（记者会）今日开幕，股价上涨",
        "转型中的海登银行",
        "编辑部来源于海登银行的调查报告称其隐瞒亏损",
        "数据来源：海登银行称第二季度净利润下降",
        "新华社区的海登银行网点关闭",
        "海登银行 - 塔沃斯合并",
    ],
)
def test_chinese_words_that_only_look_like_a_dress_stay(text):
    assert tokenise(normalise(text, "", "")) == [character for character in text if character.isalnum()]


def test_a_byline_in_front_costs_no_text():
    dressed = f"（记者 张三）{STORY}"
    assert tokenise(normalise("", dressed, "")) == tokenise(STORY)
    early = f"海登银行公告（记者 张三）{STORY * 3}"
    assert tokenise(normalise("", early, ""))[-20:] == tokenise(STORY)[-20:]


def test_full_and_half_width_signs_are_the_same_and_traditional_characters_are_others():
    half = STORY.replace("。", ". ").replace("，", ", ")
    assert printed("", STORY) == printed("", half)
    assert printed("海登銀行被罰款") != printed("海登银行被罚款")


def test_reports_that_share_their_forms_of_words_only_are_two_stories():
    """What the law makes every company say in the same words does not make two announcements one."""
    law = "本公司董事会及全体董事保证本公告内容不存在任何虚假记载、误导性陈述或者重大遗漏，并对其内容的真实性承担法律责任。"
    one = "海登银行因未按规定履行客户身份识别义务，收到监管机构的行政处罚决定书，罚款三亿元，公司将认真整改，积极落实监管意见。"
    other = "塔沃斯集团拟以自有资金收购鲁梅克公司全部股权，交易完成后鲁梅克成为全资子公司，本次交易不构成重大资产重组。"
    found = likeness(printed("", law + one).shingles, printed("", law + other).shingles)
    assert 0.1 < found.jaccard < 0.5
    assert found.containment < 0.8


def test_the_names_of_agencies_are_known_without_the_source():
    assert normalise("Halden Bank fined | Bloomberg", "", "") == "halden bank fined"
    assert normalise("Halden Bank fined - Kestrel", "", "") == "halden bank fined - kestrel"


def test_copyright_lines_end_the_text():
    assert normalise("", "Halden Bank fined. \u00a9 2026 Northern Wire", "") == "halden bank fined."
    assert normalise("", "Halden Bank fined. (c) Northern Wire", "") == "halden bank fined."


@pytest.mark.parametrize(
    "headline", ["Update-to-date guide to mergers", "Briefing on rates", "NATO-led force stays", "Tarvos - Lumeq merger"]
)
def test_words_that_only_look_like_a_dress_stay(headline):
    kept = set(tokenise(normalise(headline, "", "northern wire")))
    assert kept >= {word for word in headline.casefold().replace("-", " ").split() if word != "update"}


def test_a_genre_moves_behind_the_headline():
    assert normalise("US STOCKS-Wall St slips", "", "") == "wall st slips us stocks"


def test_tokens_are_words_whole_numbers_and_single_chinese_characters():
    text = normalise("U.S. bank's Q2 loss: $1,250.5 mln, AT&T up", "海登银行 3%", "")
    assert tokenise(text) == ["us", "bank", "q2", "loss", "1250.5", "mln", "at&t", "up", "海", "登", "银", "行", "3"]


def test_compatibility_forms_and_case_do_not_matter():
    assert normalise("ＨＡＬＤＥＮ Bank’s Straße", "", "") == normalise("halden bank's STRASSE", "", "")


def test_only_the_beginning_of_a_text_is_compared():
    words = [f"word{number}" for number in range(400)]
    beginning = " ".join(words[:MOST_TOKENS])
    assert printed("", beginning) == printed("", " ".join(words))
    assert printed("", " ".join(words[: MOST_TOKENS - 1])) != printed("", beginning)


def test_a_text_of_twenty_words_is_compared_by_runs_of_three():
    words = [f"word{chr(97 + number)}" for number in range(20)]
    assert len(numbers(printed(" ".join(words)).shingles)) == 18
    assert len(numbers(printed(" ".join(words[:19])).shingles)) == 19 + 18 + 1  # words, pairs, the lead


def test_forty_chinese_characters_weigh_as_much_as_twenty_words():
    characters = [chr(0x4E00 + number) for number in range(40)]
    assert len(numbers(printed("".join(characters)).shingles)) == 38
    assert len(numbers(printed("".join(characters[:39])).shingles)) == 39 + 38 + 1  # characters, pairs, the leading pair


def test_a_text_without_words_has_only_the_key_of_its_exact_text():
    questions, stars = printed("???"), printed("***")
    assert questions.shingles == stars.shingles == b""
    assert len(numbers(questions.keys)) == len(numbers(stars.keys)) == 1
    assert questions.keys != stars.keys
    assert likeness(questions.shingles, questions.shingles).jaccard == 0.0


def test_a_headline_of_stop_words_keeps_them():
    assert len(numbers(printed("Who was who").shingles)) > 0


def test_containment_needs_eight_shingles():
    short, longer = printed("alpha beta gamma"), printed("alpha beta gamma delta epsilon zeta eta theta")
    assert len(numbers(short.shingles)) == 6
    assert likeness(short.shingles, longer.shingles).containment == 0.0
    enough = printed("alpha beta gamma delta")
    assert len(numbers(enough.shingles)) == 8
    assert likeness(enough.shingles, longer.shingles).containment == 1.0


def test_a_brief_is_contained_in_the_full_text():
    words = [f"w{number}" for number in random.Random(1).sample(range(10_000), 250)]
    found = likeness(printed("", " ".join(words)).shingles, printed("", " ".join(words[:100])).shingles)
    assert found.containment == 1.0
    assert found.jaccard == pytest.approx(0.4, abs=0.02)
    assert not found.contradicts


def test_one_more_number_is_no_contradiction():
    found = likeness(printed("Halden Bank profit up 12 pct").shingles, printed("Halden Bank profit up 12 pct to 3 bln").shingles)
    assert not found.contradicts


def test_a_headline_about_what_the_other_begins_with_is_no_contradiction():
    assert not likeness(printed("Halden Bank fined").shingles, printed("Regulator says Halden Bank fined").shingles).contradicts


def test_a_subject_that_moves_is_no_contradiction():
    assert not likeness(printed("Ratings firm cuts Halden").shingles, printed("Halden cut by ratings firm").shingles).contradicts


def test_band_keys_find_texts_that_differ_in_a_few_words():
    """One word in twenty changed leaves a Jaccard similarity of about 0.75: 32 bands of 4 rows miss next to none of these."""
    pick = random.Random(2)
    found = 0
    for _ in range(50):
        words = [f"w{pick.randrange(5_000)}" for _ in range(200)]
        changed = [f"x{pick.randrange(5_000)}" if pick.random() < 0.05 else word for word in words]
        first, second = printed("", " ".join(words)), printed("", " ".join(changed))
        found += bool(np.intersect1d(numbers(first.keys), numbers(second.keys)).size)
    assert found >= 49


def test_unrelated_texts_share_no_key():
    pick = random.Random(3)
    texts = [" ".join(f"w{pick.randrange(50_000)}" for _ in range(100)) for _ in range(60)]
    keys = np.concatenate([numbers(own.keys) for own in fingerprints(texts)])
    assert len(np.unique(keys)) == len(keys)


def test_fingerprints_are_the_same_in_every_process():
    program = (
        "from monitor.fingerprints import fingerprints, normalise;"
        "own = fingerprints([normalise('Halden Bank fined 3 mln', '', '')])[0];"
        "print(own.shingles.hex(), own.keys.hex())"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout.split()
    own = printed("Halden Bank fined 3 mln")
    assert out == [own.shingles.hex(), own.keys.hex()]


def test_the_numbers_of_a_fingerprint_do_not_change_between_releases():
    """Stored stories are compared with new texts: another value here means another schema."""
    own = printed("Halden Bank fined 3 mln")
    assert numbers(own.shingles)[0] == 112266347804173725
    assert numbers(own.keys)[:2].tolist() == [11200961876822051908, 13483083841266677562]


def test_half_a_number_is_refused():
    with pytest.raises(ValueError, match="buffer size"):
        numbers(b"1234567")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=6), st.text(max_size=60))
def test_what_else_is_fingerprinted_changes_nothing(others, text):
    alone = fingerprints([normalise(text, "", "")])[0]
    assert fingerprints([normalise(other, "", "") for other in [*others, text]])[-1] == alone
    shingles = numbers(alone.shingles)
    assert (np.diff(shingles.astype(object)) > 0).all()
    assert len(numbers(alone.keys)) == (33 if len(shingles) else 1)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab12 海登", max_size=40), st.text(alphabet="ab12 海登", max_size=40))
def test_likeness_is_symmetrical_and_a_share(one, other):
    first, second = printed(one).shingles, printed(other).shingles
    found = likeness(first, second)
    assert found == likeness(second, first)
    assert 0.0 <= found.jaccard <= 1.0
    assert found.jaccard <= found.containment <= 1.0 or found.containment == 0.0
    assert not likeness(first, first).contradicts


def test_a_hostile_text_costs_no_more_than_a_long_one():
    chinese = ("_字" * 1_500, "原标题:" * 900, "(记者" * 1_000, "新华社" * 1_000, "来源:字 " * 700, "(图)" * 1_000, "转载!" * 800)
    for hostile in (
        *chinese,
        "(" * 3_000,
        " -" * 2_000,
        "<" * 3_000,
        "a." * 2_000,
        "UPDATE " * 500,
        "A" * 3_000,
        "1," * 2_000,
        "'" * 3_000,
    ):
        assert len(tokenise(normalise(hostile, hostile, hostile))) <= MOST_TOKENS
