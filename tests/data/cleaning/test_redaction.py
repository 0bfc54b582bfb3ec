"""What identifies a person goes; dates, books, statutes, versions and amounts stay."""

from __future__ import annotations

import pytest

from pretune.data.cleaning.redaction import TAGS, is_valid_chinese_id, is_valid_luhn, redact


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to jane.doe+news@mail.example.co.uk, please", "write to [EMAIL], please"),
        ("邮箱：zhang_san@example.com。", "邮箱：[EMAIL]。"),
        ("请联系zhang@example.cn或电话13812345678", "请联系[EMAIL]或电话[PHONE]"),
        ("手机138 1234 5678，座机010-62345678，(021)6234-5678", "手机[PHONE]，座机[PHONE]，[PHONE]"),
        ("+86 138-1234-5678 or 0755-12345678", "[PHONE] or [PHONE]"),
        ("call (212) 555-0187 or 415-555-0132 or 1-800-555-0199", "call [PHONE] or [PHONE] or [PHONE]"),
        ("ring +44 20 7946 0958 or +49 30 901820.", "ring [PHONE] or [PHONE]."),
        ("身份证号11010519491231002X。", "身份证号[ID]。"),
        ("SSN 219-09-9999", "SSN [ID]"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004", "card [CARD], [CARD]"),
        ("银联卡6222020000000000000 8", "银联卡6222020000000000000 8"),
        ("amex 378282246310005 or 3782 822463 10005", "amex [CARD] or [CARD]"),
        ("from 203.0.113.77:8080", "from [IP]:8080"),
        ("host 2001:db8:85a3::8a2e:370:7334 answered", "host [IP] answered"),
    ],
)
def test_personal_data_go(text: str, clean: str) -> None:
    assert redact(text, TAGS)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15, 2021-2022, 15/01/2024, 12:30:45, 20240115",
        "二〇二四年一月十五日，1949年10月1日至2024年10月1日",
        "ISBN 978-7-301-12345-6, ISBN 9787301123454, ISSN 1234-5678",
        "第一百二十三条、第1384条，国发〔2019〕12号，（2019）京01民终1381号",
        "version 10.2.33.4, v1.22.333.4, section 1.2.3.4, 第3.2.21.4节",
        "pi is 3.14159265358979323846, 0.13812345678",
        "1,381,234,567.80 元, 人民币13812345.67元, $4,111,111,111",
        "DOI 10.1038/s41586-020-2649-2, arXiv:2311.01149, CVE-2021-44228",
        "std::vector<int>::iterator, a::b, 08:00:2b:01:02:03",
        "order 4111111111111112 has no valid check digit",
        "身份证样本110105194912310021 校验位不对",
        "user@localhost and @mention and 3 @ 5",
        "订单号20210312138123456789012345",
        "案卷13812345678号",
        "commit 13812345678abcdef and a13812345678",
        "1914-1918-1939-1945 and 123-45-678",
        "+100, C++11, 2+2=4, +3.5%",
        "0000-00-0000 and 000-12-3456 and 987-65-4321",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text, TAGS) == (text, {})


def test_kinds_and_tags_are_chosen_and_counted() -> None:
    text = "a@example.com b@example.com 13812345678"
    assert redact(text, {"phone": "<电话>"}) == ("a@example.com b@example.com <电话>", {"phone": 1})
    assert redact(text, TAGS)[1] == {"email": 2, "phone": 1}


def test_check_digits() -> None:
    assert is_valid_luhn("79927398713")  # the example of ISO/IEC 7812-1
    assert not is_valid_luhn("79927398710")
    assert is_valid_chinese_id("11010519491231002X")  # the example of GB 11643-1999
    assert is_valid_chinese_id("440524188001010014")
    assert not is_valid_chinese_id("11010519491331002X")
