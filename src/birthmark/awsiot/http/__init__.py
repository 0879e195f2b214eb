"""Control plane and HTTPS publish: `app` checks who asks, `routing` finds the operation, the rest are its shells."""
