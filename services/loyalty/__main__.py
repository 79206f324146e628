"""The loyalty service: `python -m services.loyalty`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.loyalty.v1.balances_pb2_grpc import add_BalancesServiceServicer_to_server
from regulars.loyalty.v1.households_pb2_grpc import (
    add_HouseholdsServiceServicer_to_server,
    add_MyHouseholdServiceServicer_to_server,
)
from regulars.loyalty.v1.ledger_pb2_grpc import (
    add_LedgerServiceServicer_to_server,
    add_MyLoyaltyServiceServicer_to_server,
)
from regulars.loyalty.v1.loyalty_pb2_grpc import (
    add_JobsServiceServicer_to_server,
    add_LoyaltyServiceServicer_to_server,
)
from regulars.loyalty.v1.programs_pb2_grpc import add_ProgramsServiceServicer_to_server
from regulars.loyalty.v1.referrals_pb2_grpc import (
    add_MyReferralsServiceServicer_to_server,
    add_ReferralsServiceServicer_to_server,
)
from regulars.loyalty.v1.reports_pb2_grpc import add_ReportsServiceServicer_to_server
from regulars.loyalty.v1.rewards_pb2_grpc import (
    add_MyRewardsServiceServicer_to_server,
    add_RedemptionsServiceServicer_to_server,
    add_RewardsServiceServicer_to_server,
)
from regulars.loyalty.v1.tiers_pb2_grpc import add_TiersServiceServicer_to_server
from services.loyalty.balances.service import BalancesService
from services.loyalty.consumers import HANDLERS
from services.loyalty.households.jobs import PERIODIC as HOUSEHOLDS
from services.loyalty.households.service import HouseholdsService, MyHouseholdService
from services.loyalty.ledger.jobs import PERIODIC as LEDGER
from services.loyalty.ledger.service import LedgerService, MyLoyaltyService
from services.loyalty.overrides.jobs import JOBS as OVERRIDE_JOBS
from services.loyalty.overrides.jobs import PERIODIC as OVERRIDES
from services.loyalty.problems import PROBLEMS
from services.loyalty.programs.service import ProgramsService
from services.loyalty.referrals.jobs import JOBS as REFERRAL_JOBS
from services.loyalty.referrals.jobs import PERIODIC as REFERRALS
from services.loyalty.referrals.service import MyReferralsService, ReferralsService
from services.loyalty.reports.jobs import PERIODIC as REPORTS
from services.loyalty.reports.service import ReportsService
from services.loyalty.rewards.jobs import PERIODIC as REWARDS
from services.loyalty.rewards.service import MyRewardsService, RedemptionsService, RewardsService
from services.loyalty.service import LoyaltyService
from services.loyalty.tiers.jobs import JOBS as TIER_JOBS
from services.loyalty.tiers.jobs import PERIODIC as TIERS
from services.loyalty.tiers.service import TiersService

SERVICE = Service(
    name="loyalty",
    servicers=lambda rt: [
        (add_LoyaltyServiceServicer_to_server, LoyaltyService(rt)),
        (add_ProgramsServiceServicer_to_server, ProgramsService(rt)),
        (add_LedgerServiceServicer_to_server, LedgerService(rt)),
        (add_MyLoyaltyServiceServicer_to_server, MyLoyaltyService(rt)),
        (add_BalancesServiceServicer_to_server, BalancesService(rt)),
        (add_TiersServiceServicer_to_server, TiersService(rt)),
        (add_RewardsServiceServicer_to_server, RewardsService(rt)),
        (add_RedemptionsServiceServicer_to_server, RedemptionsService(rt)),
        (add_MyRewardsServiceServicer_to_server, MyRewardsService(rt)),
        (add_ReferralsServiceServicer_to_server, ReferralsService(rt)),
        (add_MyReferralsServiceServicer_to_server, MyReferralsService(rt)),
        (add_HouseholdsServiceServicer_to_server, HouseholdsService(rt)),
        (add_MyHouseholdServiceServicer_to_server, MyHouseholdService(rt)),
        (add_ReportsServiceServicer_to_server, ReportsService(rt)),
        (add_JobsServiceServicer_to_server, JobsServicer(rt)),
    ],
    consumers=HANDLERS,
    jobs={**TIER_JOBS, **OVERRIDE_JOBS, **REFERRAL_JOBS},
    periodic=[*LEDGER, *TIERS, *OVERRIDES, *REWARDS, *REFERRALS, *HOUSEHOLDS, *REPORTS],
    problems=PROBLEMS,
)

if __name__ == "__main__":
    main(SERVICE)
