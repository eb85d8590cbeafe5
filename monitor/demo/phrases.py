"""The words of the sample day: every company, person, outlet and event here is invented."""

from __future__ import annotations

from typing import Final

OUTLETS: Final = (
    "Meridian Wire",
    "Harbour Post",
    "Ledger Daily",
    "Northgate Times",
    "Capital Courier",
    "Exchange Observer",
    "Tidewater News",
    "Morning Tally",
    "Eastbank Review",
    "汇川财经",
)

WATCHED: Final = (
    "Brackwater Financial",
    "Cavendale Bank",
    "Ostermark Kredit",
    "Pellworth Group",
    "Quillhaven Trust",
    "Sundermere Bank",
    "Tarnwick Savings",
    "Velmora Bank",
    "Wexhollow Insurance",
    "Ardenfeld Utilities",
    "Aurelock Mining",
    "Brightsedge Retail",
    "Corvantis Software",
    "Drovestone Logistics",
    "Ferrolith Steel",
    "Holmgate Pharma",
    "Kestrona Motors",
    "Marlune Foods",
    "Norvane Energy",
    "Silverquay Hotels",
    "Tessarion Semiconductors",
    "Zephyrline Airways",
    "Halden Bank",
    "Lantern Bank",
)

OTHERS: Final = tuple(
    f"{first} {last}"
    for first in ("Alderpoint", "Bexworth", "Calloway", "Dunmere", "Elmstead", "Fenwick Vale", "Greyharbour", "Hollins", "Ivorne")
    for last in ("Foods", "Chemicals", "Logistics", "Networks", "Biotech", "Retail", "Motors", "Software")
)

PEOPLE: Final = ("Ines Varga", "Tobias Kern", "Mara Lindqvist", "Owen Achterberg", "Priya Ramanathan", "Luc Fontaine", "Hana Sato")
PLACES: Final = ("Eastport", "Varna Bay", "Northmoor", "Saltcombe", "Kingsferry", "Lowdale", "Marrowby", "Port Ellis")
PRODUCTS: Final = (
    "a payments app",
    "a battery plant",
    "a heart drug",
    "an inventory system",
    "a cargo terminal",
    "a chip line",
    "a fare club",
)

# Ordinary days, by what they are about: {c} a company, {d} another, {n} {m} numbers, {p} a place, {w} a person, {x} a product.
ORDINARY: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "Earnings": (
        (
            "{c} quarterly profit rises {n} percent on demand in {p}",
            "Revenue came to {m} million, ahead of what analysts had expected.",
        ),
        (
            "{c} posts net income of {m} million, lifts outlook",
            "{w}, the finance chief, said orders were up {n} percent from a year ago.",
        ),
        ("{c} second-quarter sales flat at {m} million", "Margins held steady while costs at the {p} site came down {n} percent."),
        (
            "{c} misses profit estimates as {p} unit slows",
            "Earnings per share fell {n} percent; the company kept its full-year target.",
        ),
        ("{c} reports record results with revenue of {m} million", "The board pointed to strong business around {p}."),
    ),
    "Analyst Update": (
        ("Brokers raise {c} price target to {m}, cite {p} expansion", "The note by {w} keeps a buy rating."),
        ("{c} cut to hold from buy at Greyharbour Research", "Analyst {w} sees {n} percent less room for the shares."),
        ("Analysts start coverage of {c} with outperform", "They expect earnings growth of {n} percent a year."),
    ),
    "M&A | Investments": (
        ("{c} agrees to buy {d} for {m} million", "The deal is expected to close in {p} before the end of the year."),
        ("{c} sells its {p} business to {d}", "The price of {m} million includes debt."),
        ("{d} takes {n} percent stake in {c}", "{w} said the holding was long term."),
    ),
    "Company | Product News": (
        ("{c} launches {x} in {p}", "The first {m} customers get it this week, {w} said."),
        ("{c} opens research centre in {p} with {m} staff", "It works with {d} on {x}."),
        ("{c} wins {m} million contract from {d}", "Work begins in {p} and runs for {n} years."),
    ),
    "Dividend": (
        ("{c} declares quarterly dividend of {n} cents", "It is payable to holders of record in {p} trading."),
        ("{c} raises dividend by {n} percent and buys back {m} million of shares", "The board spoke of a solid balance sheet."),
    ),
    "Personnel Change": (
        ("{c} names {w} as chief financial officer", "{w} comes from {d} after {n} years."),
        ("{w} to lead {c} in {p}", "The change takes effect next month, the company said."),
    ),
    "Fed | Central Banks": (
        ("Central bank of {p} keeps rate at {n}.25 percent", "Governor {w} said inflation was on its way to target."),
        ("Policymaker {w} sees no hurry to move rates", "Minutes show {n} members in favour of waiting."),
    ),
    "Macro": (
        ("{p} factory output grows {n} percent in the month", "Economists had looked for less."),
        ("Consumer confidence in {p} at {m}, little changed", "Households expect prices to rise {n} percent."),
        ("{p} unemployment rate eases to {n} percent", "Hiring was strongest in services, the statistics office said."),
    ),
    "Energy | Oil": (
        ("Crude settles at {m} dollars as {p} output returns", "Stocks rose by {n} million barrels."),
        ("{c} begins drilling off {p}", "The field may hold {m} million barrels, {w} said."),
    ),
    "Currencies": (("{p} crown trades {n} basis points firmer", "Dealers spoke of quiet flows."),),
    "Gold | Metals | Materials": (("Gold holds near {m}0 an ounce", "Buyers in {p} took {n} tonnes last week."),),
    "Treasuries | Corporate Debt": (
        ("{c} prices {m} million bond at {n} percent", "Orders from {p} investors covered the issue."),
        ("Ten-year yield slips {n} basis points", "An auction of {m} million met steady demand."),
    ),
    "IPO": (("{d} files for listing in {p}, seeks {m} million", "{w} and partners keep {n} percent."),),
    "Legal | Regulation": (
        ("{c} settles {p} licence dispute for {n} million", "The company admitted no fault."),
        ("Watchdog clears {c} purchase of {p} depots", "Conditions run for {n} years."),
    ),
    "Stock Movement": (
        ("{c} shares gain {n} percent after {p} order", "Volume was {m} thousand."),
        ("{c} stock slips {n} percent on profit taking", "Traders in {p} saw no news behind it."),
    ),
    "Markets": (("{p} shares close {n} points higher", "Banks and utilities led; {c} added {m} cents."),),
    "Politics": (("{p} assembly passes budget of {m} billion", "Minister {w} spoke of {n} months of work."),),
}

CHINESE: Final = (
    ("凯斯特罗纳汽车三季度净利润增长{n}%", "公司称{m}万辆订单将于年内交付。"),
    ("诺凡能源与地方政府签署{m}亿元合作协议", "项目分{n}年建设。"),
    ("泰萨瑞半导体新产线投产", "预计年产能提高{n}%。"),
    ("维尔莫拉银行发行{m}亿元债券", "票面利率{n}%。"),
    ("奥斯特马克信贷公布半年报,营收增长{n}%", "董事会维持全年目标不变,拟派息{m}分。"),
)

NOISE: Final = (
    ("Halden Rovers beat Marrowby {n}-1 in the cup", "Supporters filled the ground by the lake."),
    ("Lantern Festival draws {m} thousand visitors to {p}", "Boats with lights went down the river."),
    ("Recipe: {n} ways with winter squash", "The cooks of {p} share theirs."),
    ("Weather: rain over {p}, {n} degrees by the evening", "The weekend stays mild."),
    ("Choir of {p} wins its {n}th prize", "{w} conducts."),
    ("Traffic: roadworks in {p} for {n} days", "Drivers are asked to go round by the bridge."),
)

# The run: what is new as the hours go by. Each is a story of its own; (minutes after 13:00, headline, what follows).
RUN: Final = (
    (
        0,
        "Halden Bank shares slide on rumours of heavy losses",
        "A loan book tied to empty towers is said to be worth a fraction of its price.",
    ),
    (6, "Halden Bank shares fall sharply on talk of bad loans", "The stock lost a fifth of its value within minutes."),
    (9, "Halden Bank declines to comment on liquidity fears", "Calls to the bank's press office were not returned."),
    (13, "Halden Bank slumps as worried depositors queue in Saltcombe", "Some had waited since noon to take their money out."),
    (16, "Halden Bank bonds plunge to distressed levels", "Dealers spoke of sellers only and no bids."),
    (19, "Cost of insuring Halden Bank debt against default doubles", "Swap spreads passed those of the last crisis."),
    (24, "Halden Bank stock tumbles as lenders cut credit lines", "Two banks refused to roll over overnight loans."),
    (28, "Halden Bank loses a third of its market value", "Trading in the shares was halted twice for volatility."),
    (33, "Cash machines of Halden run dry in Kingsferry", "Guards closed the doors of the main branch early."),
    (38, "Halden Bank trading halted after shares plunge", "The suspension holds until a statement is made, the operator said."),
    (42, "Halden Bank suffers run on deposits as losses mount", "Staff counted the largest outflow in its history."),
    (47, "Halden Bank downgraded to junk, bonds slump", "It warned of further downgrades and a serious risk of default."),
    (52, "Investors sue Halden over hidden losses", "The complaint says that the board misled shareholders for two years."),
    (57, "Halden Bank shares drop again as finance chief quits in crisis", "The departure comes days before the annual accounts."),
    (62, "Halden Bank sinks as prosecutors search offices in fraud probe", "Boxes of files were carried from the headquarters."),
    (67, "Halden Bank paper falls as money market funds dump it", "Managers wrote down what they could not sell."),
    (72, "Halden crisis deepens as clients flee", "Companies move their payrolls to rivals."),
    (78, "Regulator says it watches Halden Bank with grave concern", "The supervisor would not rule out a failure."),
    (84, "Halden may be insolvent, analysts warn", "A hole of six billion is feared in the books."),
    (90, "Brackwater Financial tumbles as Halden fears spread", "Its exposure to the troubled lender is unclear."),
    (95, "Cavendale Bank hit by contagion from Halden collapse fears", "The shares slumped to the lowest price in nine years."),
    (101, "Unions fear thousands of job losses at Halden", "Workers gathered outside the tower."),
    (108, "Halden Bank fails to raise emergency capital", "Talks with two investors broke down at midday."),
    (115, "Pension schemes count losses on Halden shares", "One fund alone wrote off ninety million."),
    (123, "Halden clients locked out of online accounts", "The app showed an error for hours; anger grew."),
    (131, "Halden Bank hit as auditors refuse to sign accounts", "They cite doubts over whether the bank can survive."),
    (140, "Second agency downgrades Halden deep into junk", "Default is now its base case."),
    (149, "Halden Bank on brink of bankruptcy as talks stall", "Directors met for the third time today."),
    (158, "Small firms stranded as Halden freezes loans", "Payments bounced across Northmoor."),
    (167, "Opposition attacks minister over Halden disaster", "Members spoke of a failure of oversight."),
    (177, "Halden bondholders brace for wipeout", "Junior paper was quoted at four cents."),
    (188, "Short sellers profit as Halden sinks", "Lenders of stock asked record fees."),
    (199, "Halden Bank stops new lending as cash shortage worsens", "A memo speaks of an acute shortage of funds."),
    (212, "Halden Bank withdrawals worsen, police called to branches", "Police were called to two towns."),
    (226, "Property funds tied to Halden suspend withdrawals", "Savers cannot reach their money."),
    (241, "Halden Bank warned it could miss tonight's payments", "Clearing members were told to prepare for a default."),
)

RESCUE: Final = (
    (330, "Halden Bank jumps as Sundermere Bank agrees to rescue it", "The state guarantees all deposits; branches open as usual."),
    (338, "Relief as Halden deposits are guaranteed in full", "Savers welcomed the announcement with applause."),
    (346, "Halden bonds rally after rescue deal", "Paper jumped to ninety cents."),
    (355, "Regulator praises strong solution for Halden Bank", "Confidence has returned, the supervisor said."),
    (365, "Halden cash machines work again, queues gone", "Customers spoke of great relief."),
    (378, "Agency lifts Halden Bank outlook after takeover", "It expects a strong recovery under the new owner."),
    (392, "Sundermere sees growth from Halden purchase", "Savings will exceed two hundred million, it said."),
    (410, "Halden Bank staff keep their jobs under rescue plan", "Unions called it a good day."),
    (430, "Markets gain as Halden rescue lifts mood", "Banks led the evening's advance."),
    (455, "Halden clients return deposits after guarantee", "Inflows beat withdrawals for the first time since noon."),
)
