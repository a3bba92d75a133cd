"""Which asset an Allocation gets: small pure policies, each in its own file, asked in order.

    Request + offers -> chain.choose -> Choice | NoneFits (a sentence with the reasons, counted)

They spare the tenant a refusal and find the reason to tell; the ledger remains the judge of every one of them.
"""
