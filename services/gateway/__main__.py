"""The gateway: `python -m services.gateway`."""

from libs.run.service import main
from services.gateway.server import GatewayService

SERVICE = GatewayService()

if __name__ == "__main__":
    main(SERVICE)
